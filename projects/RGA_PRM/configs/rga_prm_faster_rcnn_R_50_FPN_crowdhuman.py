from ....configs.base.compose import compose
from .components.rga_prm import crowd, prm, rga

model, data, dataloader, optimizer, lr_multiplier, train = compose("faster_rcnn", "R_50", "crowdhuman", "crowdhuman")
crowd(model, dataloader)
rga(train)
prm(model)
