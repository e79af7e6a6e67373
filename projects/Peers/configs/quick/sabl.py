from .....configs.base.quick import quick
from ..components.heads import sabl

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
sabl(model, conv_dim=64)  # small, as the rest
