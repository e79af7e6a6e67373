from .....configs.base.quick import quick
from ..components.suppressions import iou_guided_nms

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
iou_guided_nms(model)
