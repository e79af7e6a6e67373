from ....configs.base.compose import compose
from .components.r3 import full_scale, groie, htc

model, data, dataloader, optimizer, lr_multiplier, train = compose("cascade_mask_rcnn", "R_50", "1x")
htc(model)
full_scale(model)
groie(model)
