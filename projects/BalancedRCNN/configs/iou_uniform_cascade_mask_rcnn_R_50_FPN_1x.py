from ....configs.base.compose import compose
from ...IoUUniformRCNN.configs.components.iou_uniform import iou_uniform

model, data, dataloader, optimizer, lr_multiplier, train = compose("cascade_mask_rcnn", "R_50", "1x")
iou_uniform(model)
