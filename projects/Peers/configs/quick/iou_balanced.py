from .....configs.base.quick import quick
from ..components.samples import iou_balanced

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
iou_balanced(model)
