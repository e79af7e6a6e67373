from ..base.quick import quick

model, data, dataloader, optimizer, lr_multiplier, train = quick("fcos")
