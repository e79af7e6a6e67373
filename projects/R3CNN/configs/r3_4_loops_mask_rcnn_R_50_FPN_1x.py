from ....configs.base.compose import compose
from .components.r3 import full_scale, loop_masks, loops

model, data, dataloader, optimizer, lr_multiplier, train = compose("mask_rcnn", "R_50", "1x")
loops(model, ious=[0.5, 0.6, 0.7, 0.8], loss_weights=[1.0, 0.75, 0.5, 0.3])
loop_masks(model)
full_scale(model)
