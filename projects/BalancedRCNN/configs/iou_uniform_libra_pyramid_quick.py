from ....configs.base.quick import quick
from .components.mixes import iou_uniform_libra_pyramid

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
iou_uniform_libra_pyramid(model)
