from .....configs.base.quick import quick
from ..components.heads import double_head

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
double_head(model, conv_dim=64, num_convs=2)  # small, as the rest
