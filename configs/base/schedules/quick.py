"""240 iterations of 4 images: minutes on one CPU core."""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler

batch_size = 4
max_iter = 240
lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(CosineParamScheduler)(start_value=1, end_value=0),
    warmup_factor=0.01,
    warmup_length=50 / max_iter,
    warmup_method="linear",
)
