from .....configs.base.quick import quick
from ..components.losses import ciou

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
ciou(model)
