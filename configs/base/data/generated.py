"""The generated data set (``python -m d2_balanced.data.generated``), in small."""

from ..detection_data import detection_data

eval_period = 240
num_classes = 3
dataloader = detection_data(
    "generated_train", "generated_val", min_size_train=(160,), max_size=320, min_size_test=160, num_workers=0
)
