from ....configs.base.compose import compose
from .components.mixes import everything

model, data, dataloader, optimizer, lr_multiplier, train = compose("faster_rcnn", "R_50", "1x")
everything(model, train)
