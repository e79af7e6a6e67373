from .....configs.base.quick import quick
from ..components.samples import ohem_fraction

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
ohem_fraction(model)
