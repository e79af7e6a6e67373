from .....configs.base.quick import quick
from ..components.samples import ohem

model, data, dataloader, optimizer, lr_multiplier, train = quick("faster_rcnn")
ohem(model)
model.roi_heads.sample_weights.num_per_image = 32  # the small detector has 300 proposals an image
