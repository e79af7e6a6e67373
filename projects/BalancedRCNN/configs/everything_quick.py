from ....configs.base.quick import quick
from ...R3CNN.configs.components.r3 import loop_masks, mask_scoring
from .components.mixes import everything

model, data, dataloader, optimizer, lr_multiplier, train = quick("mask_rcnn")
everything(model, train, period=20)
loop_masks(model)
mask_scoring(model)
