from ....configs.base.compose import compose
from .components.r3 import mask_scoring

model, data, dataloader, optimizer, lr_multiplier, train = compose("mask_rcnn", "R_50", "1x")
mask_scoring(model)
