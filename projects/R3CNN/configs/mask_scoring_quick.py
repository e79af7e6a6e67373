from ....configs.base.quick import quick
from .components.r3 import mask_scoring

model, data, dataloader, optimizer, lr_multiplier, train = quick("mask_rcnn")
mask_scoring(model)
