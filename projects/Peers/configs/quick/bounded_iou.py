from .....configs.base.quick import quick
from ..components.losses import bounded_iou

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
bounded_iou(model)
