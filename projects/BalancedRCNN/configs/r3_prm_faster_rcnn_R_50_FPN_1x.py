from ....configs.base.compose import compose
from .components.mixes import r3_prm

model, data, dataloader, optimizer, lr_multiplier, train = compose("faster_rcnn", "R_50", "1x")
r3_prm(model)
