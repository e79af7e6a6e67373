from .....configs.base.quick import quick
from ..components.heads import buckets

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
buckets(model)
