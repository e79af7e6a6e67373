from ....configs.base.compose import compose
from .components.libra import bounded_rpn_negatives, libra

model, data, dataloader, optimizer, lr_multiplier, train = compose("faster_rcnn", "X_101_64x4d", "1x")
libra(model)
bounded_rpn_negatives(model)
