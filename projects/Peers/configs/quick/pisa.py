from .....configs.base.quick import quick
from ..components.samples import pisa

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
pisa(model)
