from ....configs.base.quick import quick
from ...DynamicRCNN.configs.components.dynamic import dynamic_label_assignment, dynamic_smooth_l1
from ...LibraRCNN.configs.components.libra import balanced_pyramid, iou_balanced_sampling

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
iou_balanced_sampling(model)
balanced_pyramid(model)
# As dynamic_quick: 12 windows in 240 iterations, and many small objects.
dynamic_label_assignment(model, period=20)
dynamic_smooth_l1(model, period=20, count_appended_gt=False)
