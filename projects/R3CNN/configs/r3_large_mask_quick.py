from ....configs.base.quick import quick
from .components.r3 import large, loop_masks, loops

model, data, dataloader, optimizer, lr_multiplier, train = quick("mask_rcnn")
loops(model)
loop_masks(model)
large(model)
