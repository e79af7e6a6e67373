from ....configs.base.compose import compose
from .components.dynamic import dynamic

model, data, dataloader, optimizer, lr_multiplier, train = compose("faster_rcnn", "R_50", "2x")
dynamic(model)
