from ..base.compose import compose

model, data, dataloader, optimizer, lr_multiplier, train = compose("fast_rcnn", "R_101", "1x", "coco_proposals")
