from ....configs.base.compose import compose
from .components.rga_prm import prm, rga

model, data, dataloader, optimizer, lr_multiplier, train = compose("faster_rcnn", "R_50", "1x")
rga(train)
prm(model)
