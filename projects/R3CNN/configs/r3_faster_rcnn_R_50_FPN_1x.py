from ....configs.base.compose import compose
from .components.r3 import full_scale, loops

model, data, dataloader, optimizer, lr_multiplier, train = compose("faster_rcnn", "R_50", "1x")
loops(model)
full_scale(model)
