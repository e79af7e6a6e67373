from .....configs.base.quick import quick
from ..components.losses import focal_loss

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
focal_loss(model)
