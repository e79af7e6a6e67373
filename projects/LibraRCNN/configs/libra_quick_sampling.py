from ....configs.base.quick import quick
from .components.libra import iou_balanced_sampling

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
iou_balanced_sampling(model)
