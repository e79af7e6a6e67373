from ....configs.base.compose import compose
from .components.rga_prm import prm, rga, smooth_l1

model, data, dataloader, optimizer, lr_multiplier, train = compose("faster_rcnn", "X_101_64x4d", "1x")
smooth_l1(model)
rga(train)
prm(model)
