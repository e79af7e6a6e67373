from .....configs.base.quick import quick
from ..components.losses import class_balanced

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
class_balanced(model)
