from ....configs.base.quick import quick
from .components.libra import balanced_l1_retinanet, balanced_pyramid

model, data, dataloader, optimizer, lr_multiplier, train = quick("retinanet")
balanced_pyramid(model, refine_level=1)
balanced_l1_retinanet(model)
