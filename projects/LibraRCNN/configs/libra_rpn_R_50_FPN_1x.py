from ....configs.base.compose import compose
from .components.libra import balanced_pyramid, balanced_rpn

model, data, dataloader, optimizer, lr_multiplier, train = compose("rpn", "R_50", "1x")
balanced_pyramid(model)
balanced_rpn(model)
