"""CrowdHuman, full-body boxes, for ``$DETECTRON2_DATASETS/crowdhuman``."""

from ..detection_data import detection_data

eval_period = 4688
num_classes = 1
dataloader = detection_data(
    "crowdhuman_train", "crowdhuman_val", min_size_train=(800,), max_size=1400, min_size_test=800
)
