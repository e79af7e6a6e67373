from ....configs.base.compose import compose
from .components.libra import bounded_rpn_negatives, libra

model, data, dataloader, optimizer, lr_multiplier, train = compose("faster_rcnn", "R_50", "1x")
libra(model)
bounded_rpn_negatives(model)
