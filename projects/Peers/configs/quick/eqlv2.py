from .....configs.base.quick import quick
from ..components.losses import eqlv2

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
eqlv2(model)
