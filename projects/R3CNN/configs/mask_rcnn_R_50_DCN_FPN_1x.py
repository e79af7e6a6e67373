from ....configs.base.compose import compose

model, data, dataloader, optimizer, lr_multiplier, train = compose("mask_rcnn", "R_50_DCN", "1x")
