from ....configs.base.compose import compose
from .components.r3 import context_blocks, full_scale, htc

model, data, dataloader, optimizer, lr_multiplier, train = compose("cascade_mask_rcnn", "R_50", "1x")
htc(model)
full_scale(model)
context_blocks(model)
