from ....configs.base.quick import quick
from .components.dynamic import dynamic_label_assignment

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
dynamic_label_assignment(model, period=20)
