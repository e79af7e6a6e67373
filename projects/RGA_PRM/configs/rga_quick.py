from ....configs.base.quick import quick
from .components.rga_prm import rga

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
rga(train)
