from .....configs.base.quick import quick
from ..components.losses import eiou

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
eiou(model)
