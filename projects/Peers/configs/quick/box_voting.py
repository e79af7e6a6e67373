from .....configs.base.quick import quick
from ..components.suppressions import box_voting

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
box_voting(model)
