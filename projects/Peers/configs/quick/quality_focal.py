from .....configs.base.quick import quick
from ..components.losses import quality_focal

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
quality_focal(model)
