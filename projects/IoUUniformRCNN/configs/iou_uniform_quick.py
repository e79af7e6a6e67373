from ....configs.base.quick import quick
from .components.iou_uniform import iou_uniform

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
iou_uniform(model)
