from ..base.compose import compose

model, data, dataloader, optimizer, lr_multiplier, train = compose("cascade_mask_rcnn", "R_50", "3x")
