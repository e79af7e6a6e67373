from ....configs.base.compose import compose
from .components.mixes import libra_rga_prm

model, data, dataloader, optimizer, lr_multiplier, train = compose("mask_rcnn", "R_50", "1x")
libra_rga_prm(model, train)
