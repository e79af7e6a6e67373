from ....configs.base.compose import compose
from ...R3CNN.configs.components.r3 import loop_masks
from .components.mixes import r3_prm

model, data, dataloader, optimizer, lr_multiplier, train = compose("mask_rcnn", "R_50", "1x")
r3_prm(model)
loop_masks(model)
