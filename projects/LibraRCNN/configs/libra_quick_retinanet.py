from ....configs.base.quick import quick
from .components.libra import balanced_l1_retinanet, balanced_pyramid_retinanet

model, data, dataloader, optimizer, lr_multiplier, train = quick("retinanet")
balanced_pyramid_retinanet(model)
balanced_l1_retinanet(model)
