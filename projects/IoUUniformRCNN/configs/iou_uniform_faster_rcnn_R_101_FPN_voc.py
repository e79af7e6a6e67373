from ....configs.base.compose import compose
from .components.iou_uniform import iou_uniform, voc_12_epochs

model, data, dataloader, optimizer, lr_multiplier, train = compose("faster_rcnn", "R_101", "voc", "voc")
iou_uniform(model)
lr_multiplier = voc_12_epochs(dataloader, optimizer, train, lr=0.005)  # twice the baseline's (sec. 4.1)
