from ....configs.base.quick import quick
from .components.libra import balanced_pyramid, balanced_rpn

model, data, dataloader, optimizer, lr_multiplier, train = quick("rpn")
balanced_pyramid(model)
balanced_rpn(model)
