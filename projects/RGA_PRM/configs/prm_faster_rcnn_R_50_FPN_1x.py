from ....configs.base.compose import compose
from .components.rga_prm import prm, smooth_l1

model, data, dataloader, optimizer, lr_multiplier, train = compose("faster_rcnn", "R_50", "1x")
smooth_l1(model)
prm(model)
