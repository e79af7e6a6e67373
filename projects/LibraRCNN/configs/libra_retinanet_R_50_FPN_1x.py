from ....configs.base.compose import compose
from .components.libra import balanced_l1_retinanet, balanced_pyramid

model, data, dataloader, optimizer, lr_multiplier, train = compose("retinanet", "R_50", "1x")
balanced_pyramid(model, refine_level=1)
balanced_l1_retinanet(model)
