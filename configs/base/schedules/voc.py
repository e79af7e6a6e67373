"""17.4 epochs of VOC 2007 + 2012 trainval."""

from .multistep import multistep

batch_size = 16
max_iter = 18000
lr_multiplier = multistep(max_iter, steps=[12000, 16000], warmup_iters=100)
