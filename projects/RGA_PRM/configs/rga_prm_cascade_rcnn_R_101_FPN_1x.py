from ....configs.base.compose import compose
from .components.rga_prm import prm, rga, smooth_l1

model, data, dataloader, optimizer, lr_multiplier, train = compose("cascade_rcnn", "R_101", "1x")
smooth_l1(model)
rga(train)
prm(model)
