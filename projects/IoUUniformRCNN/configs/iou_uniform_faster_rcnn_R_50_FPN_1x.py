from ....configs.base.compose import compose
from .components.iou_uniform import coco_4_images, iou_uniform

model, data, dataloader, optimizer, lr_multiplier, train = compose("faster_rcnn", "R_50", "1x")
iou_uniform(model)
lr_multiplier = coco_4_images(dataloader, optimizer, train)
