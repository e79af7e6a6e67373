from ....configs.base.quick import quick
from .components.iou_uniform import released

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
released(model)
