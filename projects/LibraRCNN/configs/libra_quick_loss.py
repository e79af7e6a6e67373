from ....configs.base.quick import quick
from .components.libra import balanced_l1

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
balanced_l1(model)
