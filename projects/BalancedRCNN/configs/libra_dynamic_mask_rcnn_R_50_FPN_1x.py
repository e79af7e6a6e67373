from ....configs.base.compose import compose
from .components.mixes import libra_dynamic

model, data, dataloader, optimizer, lr_multiplier, train = compose("mask_rcnn", "R_50", "1x")
libra_dynamic(model)
