from ....configs.base.quick import quick
from .components.mixes import libra_rga_prm

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
libra_rga_prm(model, train)
