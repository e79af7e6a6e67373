from ....configs.base.compose import compose
from .components.iou_uniform import coco_4_images, iou_uniform

model, data, dataloader, optimizer, lr_multiplier, train = compose("cascade_rcnn", "R_101", "1x")
iou_uniform(model)
lr_multiplier = coco_4_images(dataloader, optimizer, train)
