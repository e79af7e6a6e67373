from ....configs.base.compose import compose
from .components.r3 import full_scale, groie, large, loop_masks, loops

model, data, dataloader, optimizer, lr_multiplier, train = compose("mask_rcnn", "R_50", "1x")
loops(model)
loop_masks(model)
full_scale(model)
large(model)
groie(model)
