from .....configs.base.quick import quick
from ..components.losses import iou_loss

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
iou_loss(model)
