from ....configs.base.quick import quick
from .components.r3 import htc

model, data, dataloader, optimizer, lr_multiplier, train = quick("cascade_mask_rcnn")
htc(model)
