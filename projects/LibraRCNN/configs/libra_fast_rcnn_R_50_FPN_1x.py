from ....configs.base.compose import compose
from .components.libra import libra

model, data, dataloader, optimizer, lr_multiplier, train = compose("fast_rcnn", "R_50", "1x", "coco_proposals")
libra(model)
