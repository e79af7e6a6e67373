from ....configs.base.compose import compose
from .components.mixes import dynamic_rga

model, data, dataloader, optimizer, lr_multiplier, train = compose("mask_rcnn", "R_50", "1x")
dynamic_rga(model, train)
