from ..base.compose import compose

model, data, dataloader, optimizer, lr_multiplier, train = compose("faster_rcnn", "X_101_32x4d", "3x")
