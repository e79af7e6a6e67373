from ....configs.base.quick import quick
from ...RGA_PRM.configs.components.rga_prm import prm

model, data, dataloader, optimizer, lr_multiplier, train = quick("cascade_mask_rcnn")
prm(model)
