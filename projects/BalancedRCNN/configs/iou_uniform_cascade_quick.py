from ....configs.base.quick import quick
from ...IoUUniformRCNN.configs.components.iou_uniform import iou_uniform

model, data, dataloader, optimizer, lr_multiplier, train = quick("cascade_mask_rcnn")
iou_uniform(model)
