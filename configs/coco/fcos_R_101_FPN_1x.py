from ..base.compose import compose

model, data, dataloader, optimizer, lr_multiplier, train = compose("fcos", "R_101", "1x")
