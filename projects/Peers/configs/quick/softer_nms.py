from .....configs.base.quick import quick
from ..components.suppressions import softer_nms

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
softer_nms(model)
