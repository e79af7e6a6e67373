from .....configs.base.quick import quick
from ..components.losses import ghm_r

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
ghm_r(model)
