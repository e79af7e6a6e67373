from .....configs.base.quick import quick
from ..components.losses import ghm_c

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
ghm_c(model)
