from ..base.compose import compose

model, data, dataloader, optimizer, lr_multiplier, train = compose("mask_rcnn", "X_101_64x4d", "2x")
