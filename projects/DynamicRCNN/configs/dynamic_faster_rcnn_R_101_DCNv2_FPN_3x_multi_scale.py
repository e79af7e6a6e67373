from ....configs.base.compose import compose
from .components.dynamic import dynamic, multi_scale

model, data, dataloader, optimizer, lr_multiplier, train = compose("faster_rcnn", "R_101_DCNv2", "3x")
dynamic(model)
lr_multiplier = multi_scale(dataloader, train)
