from ....configs.base.quick import quick
from .components.libra import balanced_pyramid

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
balanced_pyramid(model)
