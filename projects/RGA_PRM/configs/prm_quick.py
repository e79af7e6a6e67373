from ....configs.base.quick import quick
from .components.rga_prm import prm

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
prm(model)
