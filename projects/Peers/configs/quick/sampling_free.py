from .....configs.base.quick import quick
from ..components.samples import sampling_free

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
sampling_free(model)
