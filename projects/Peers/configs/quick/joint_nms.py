from .....configs.base.quick import quick
from ..components.suppressions import joint_nms

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
joint_nms(model)
