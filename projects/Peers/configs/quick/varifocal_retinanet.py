from .....configs.base.quick import quick
from ..components.losses import varifocal_retinanet

model, data, dataloader, optimizer, lr_multiplier, train = quick("retinanet")
varifocal_retinanet(model)
