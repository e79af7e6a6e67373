from ....configs.base.quick import quick
from .components.dynamic import dynamic_label_assignment, dynamic_smooth_l1

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
# 12 windows in 240 iterations. Many small objects: with the appended boxes every error statistic would be zero.
dynamic_label_assignment(model, period=20)
dynamic_smooth_l1(model, period=20, count_appended_gt=False)
