from .....configs.base.quick import quick
from ..components.losses import diou

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
diou(model)
