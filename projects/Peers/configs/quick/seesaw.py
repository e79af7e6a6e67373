from .....configs.base.quick import quick
from ..components.losses import seesaw

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
seesaw(model)
