from ....configs.base.quick import quick
from .components.iou_uniform import iou_predictor

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
iou_predictor(model)
