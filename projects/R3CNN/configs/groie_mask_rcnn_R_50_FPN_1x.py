from ....configs.base.compose import compose
from .components.r3 import groie

model, data, dataloader, optimizer, lr_multiplier, train = compose("mask_rcnn", "R_50", "1x")
groie(model)
