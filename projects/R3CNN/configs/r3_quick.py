from ....configs.base.quick import quick
from .components.r3 import loops

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
loops(model)
