from ..base.compose import compose

model, data, dataloader, optimizer, lr_multiplier, train = compose("mask_rcnn", "R_50", "1x")
