from ....configs.base.compose import compose
from .components.rga_prm import crowd, smooth_l1

model, data, dataloader, optimizer, lr_multiplier, train = compose("faster_rcnn", "R_50", "crowdhuman", "crowdhuman")
crowd(model, dataloader)
smooth_l1(model)
