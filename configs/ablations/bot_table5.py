"""Table 5 of Bag of Tricks: the forms of ResNet-50 on ImageNet by the efficient training.

    tools/ablate.py configs/ablations/bot_table5.py --seeds 3 --data data/imagenet

Published (arXiv 1812.01187, table 5), top-1: ResNet-50 76.21, B 76.66, C 76.87, D 77.16. Measured here: unmeasured
(needs GPUs and the data).
"""

base = "configs/imagenet_r50_efficient.py"
source = "He et al. 2018, Bag of Tricks (arXiv 1812.01187), table 5: ResNet-50 on ImageNet, top-1"
baseline = {"model.backbone.name": "resnet50"}
rungs = [
    dict(name="form B", changes={"model.backbone.name": "resnet50b"}, published=0.45),
    dict(name="form C", changes={"model.backbone.name": "resnet50c"}, published=0.21),
    dict(name="form D", changes={"model.backbone.name": "resnet50d"}, published=0.29),
]
