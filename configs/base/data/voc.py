"""VOC 2007 + 2012 trainval for training, VOC 2007 test, evaluated COCO-style."""

from ..detection_data import detection_data

eval_period = 6000
num_classes = 20
dataloader = detection_data(
    "voc_0712_trainval_coco",
    "voc_2007_test_coco",
    min_size_train=tuple(range(480, 801, 32)),
    max_size=1333,
    min_size_test=800,
)
