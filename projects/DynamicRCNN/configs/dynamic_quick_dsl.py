from ....configs.base.quick import quick
from .components.dynamic import dynamic_smooth_l1

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
dynamic_smooth_l1(model, period=20, count_appended_gt=False)
