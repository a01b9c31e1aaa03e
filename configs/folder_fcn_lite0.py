"""A light FCN on folders of images and masks of one's own.

    tools/train_seg.py configs/folder_fcn_lite0.py --data FOLDER --cfg-options \
        data.train.classes=classes.txt data.test.classes=classes.txt

FOLDER holds train/ and test/ with the images, trainannot/ and testannot/ with masks of the same names; other names by
data.train.images=..., data.train.masks=... and so on. classes.txt says what the masks' values stand for, one a line;
see transfer/data/mask_folder.py. Before that: tools/check_data.py with the same arguments.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.light_fcn_lite0 import *

from transfer.data.mask_folder import MaskFolderDataset

data = dict(
    train=dict(type=MaskFolderDataset, root="data", images="train", masks="trainannot", classes="classes.txt"),
    val=0.15,  # held out from train, to choose the best checkpoint by
    test=dict(type=MaskFolderDataset, root="data", images="test", masks="testannot", classes="classes.txt"),
)
