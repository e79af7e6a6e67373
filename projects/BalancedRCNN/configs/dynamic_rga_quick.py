from ....configs.base.quick import quick
from ...DynamicRCNN.configs.components.dynamic import dynamic_label_assignment, dynamic_smooth_l1
from ...RGA_PRM.configs.components.rga_prm import rga

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
# As dynamic_quick: 12 windows in 240 iterations, and many small objects.
dynamic_label_assignment(model, period=20)
dynamic_smooth_l1(model, period=20, count_appended_gt=False)
rga(train)
