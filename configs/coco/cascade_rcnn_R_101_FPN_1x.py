from ..base.compose import compose

model, data, dataloader, optimizer, lr_multiplier, train = compose("cascade_rcnn", "R_101", "1x")
