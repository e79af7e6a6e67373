from .....configs.base.quick import quick
from ..components.suppressions import soft_nms_retinanet

model, data, dataloader, optimizer, lr_multiplier, train = quick("retinanet")
soft_nms_retinanet(model)
