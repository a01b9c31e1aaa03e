"""EfficientNet-Lite0 fine-tuned on your own folders of images, one folder a class, on a CPU or a small GPU.

    tools/train_cls.py configs/class_folder_lite0.py --data FOLDER

FOLDER/train/CLASS/*.jpg and FOLDER/test/CLASS/*.jpg (other names: data.train.folder). Rare classes come
more often with:

    --cfg-options "loader.order={'type': 'transfer.batch.orders.ClassBalanced'}"

Measured here: unmeasured.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.light_classifier import *

from transfer.data.class_folder import ClassFolderDataset

data = dict(
    train=dict(type=ClassFolderDataset, root="data/my_classes", folder="train"),
    val=0.1,  # held out from train, to choose the best checkpoint by
    test=dict(type=ClassFolderDataset, root="data/my_classes", folder="test"),
)
