from .....configs.base.quick import quick
from ..components.losses import giou

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
giou(model)
