from ....configs.base.quick import quick
from .components.mixes import r3_iou_branch

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
r3_iou_branch(model)
