from ....configs.base.compose import compose
from .components.dynamic import dynamic

model, data, dataloader, optimizer, lr_multiplier, train = compose("mask_rcnn", "R_101", "1x")
dynamic(model)
