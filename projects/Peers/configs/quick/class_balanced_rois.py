from .....configs.base.quick import quick
from ..components.samples import class_balanced_rois

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
class_balanced_rois(model)
