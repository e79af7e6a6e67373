from .....configs.base.quick import quick
from ..components.losses import kl_loss

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
kl_loss(model)
