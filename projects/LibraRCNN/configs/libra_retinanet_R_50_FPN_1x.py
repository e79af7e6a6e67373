from ....configs.base.compose import compose
from .components.libra import balanced_l1_retinanet, balanced_pyramid_retinanet

model, data, dataloader, optimizer, lr_multiplier, train = compose("retinanet", "R_50", "1x")
balanced_pyramid_retinanet(model)
balanced_l1_retinanet(model)
