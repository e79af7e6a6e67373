from .....configs.base.quick import quick
from ..components.losses import ghm_c_retinanet

model, data, dataloader, optimizer, lr_multiplier, train = quick("retinanet")
ghm_c_retinanet(model)
