from ....configs.base.quick import quick
from .components.iou_uniform import uniform_samples

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
uniform_samples(model)
