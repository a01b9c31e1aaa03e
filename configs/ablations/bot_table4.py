"""Table 4 of Bag of Tricks: the steps to efficient training of ResNet-50 on ImageNet at batch 1024.

    tools/ablate.py configs/ablations/bot_table4.py --seeds 3 --data data/imagenet

Published (arXiv 1812.01187, table 4), top-1 at batch 1024: linear scaling 75.17, + warm-up 75.93, + zero gamma 76.37,
+ no bias decay 76.03, + FP16 76.21; at batch 256: 75.87, 76.03, 76.19, 76.16, 76.15. Measured here: unmeasured (needs
GPUs and the data).
"""

from transfer.optim.schedules import Step, WarmUp

base = "configs/imagenet_r50_efficient.py"
source = "He et al. 2018, Bag of Tricks (arXiv 1812.01187), table 4, batch 1024: ResNet-50 on ImageNet, top-1"
baseline = {  # linear scaling is in it: the table begins with it
    "schedule": dict(type=Step, milestones=[30, 60, 90], unit="epoch"),
    "model.backbone.zero_gamma": False,
    "optimizer.decay_norm_and_bias": True,
    "training.precision": "float32",
}
rungs = [
    dict(
        name="warm-up",
        changes={"schedule": dict(type=WarmUp, epochs=5, then=dict(type=Step, milestones=[30, 60, 90], unit="epoch"))},
        published=0.76,
    ),
    dict(name="zero gamma", changes={"model.backbone.zero_gamma": True}, published=0.44),
    dict(name="no bias decay", changes={"optimizer.decay_norm_and_bias": False}, published=-0.34),
    dict(name="float16", changes={"training.precision": "float16"}, published=0.18, gpus=1),
]
