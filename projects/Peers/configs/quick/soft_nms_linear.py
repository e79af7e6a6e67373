from .....configs.base.quick import quick
from ..components.suppressions import soft_nms_linear

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
soft_nms_linear(model)
