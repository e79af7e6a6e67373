from .....configs.base.quick import quick
from ..components.losses import varifocal

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
varifocal(model)
