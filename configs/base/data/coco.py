"""COCO 2017 for ``$DETECTRON2_DATASETS/coco``; compose.py sets the batch size and whether masks are read."""

from ..detection_data import detection_data

eval_period = 10000
num_classes = 80
dataloader = detection_data(
    "coco_2017_train", "coco_2017_val", min_size_train=(640, 672, 704, 736, 768, 800), max_size=1333, min_size_test=800
)
