from ....configs.base.quick import quick
from .components.rga_prm import prm, rga

model, data, dataloader, optimizer, lr_multiplier, train = quick("cascade_rcnn")
rga(train)
prm(model)
