from ....configs.base.compose import compose
from ...R3CNN.configs.components.r3 import loop_masks, mask_scoring
from .components.mixes import everything

model, data, dataloader, optimizer, lr_multiplier, train = compose("mask_rcnn", "R_50", "1x")
everything(model, train)
loop_masks(model)
mask_scoring(model)
