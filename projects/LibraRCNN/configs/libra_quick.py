from ....configs.base.quick import quick
from .components.libra import libra

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
libra(model)
