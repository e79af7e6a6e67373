from ....configs.base.compose import compose
from .components.mixes import iou_uniform_libra_pyramid

model, data, dataloader, optimizer, lr_multiplier, train = compose("faster_rcnn", "R_50", "1x")
iou_uniform_libra_pyramid(model)
