from ....configs.base.compose import compose
from ...RGA_PRM.configs.components.rga_prm import prm

model, data, dataloader, optimizer, lr_multiplier, train = compose("cascade_rcnn", "R_50", "1x")
prm(model)
