from ....configs.base.compose import compose
from ....configs.base.schedules.multistep import multistep
from .components.dynamic import dynamic, multi_scale

model, data, dataloader, optimizer, lr_multiplier, train = compose("faster_rcnn", "R_101_DCNv2", "3x")
dynamic(model)
multi_scale(dataloader)
lr_multiplier = multistep(train["max_iter"], steps=[180000, 240000])
