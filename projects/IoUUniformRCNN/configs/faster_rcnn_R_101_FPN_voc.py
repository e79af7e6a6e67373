from ....configs.base.compose import compose
from .components.iou_uniform import voc_12_epochs

model, data, dataloader, optimizer, lr_multiplier, train = compose("faster_rcnn", "R_101", "voc", "voc")
lr_multiplier = voc_12_epochs(dataloader, optimizer, train)
