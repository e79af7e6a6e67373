from ..base.compose import compose

model, data, dataloader, optimizer, lr_multiplier, train = compose("faster_rcnn", "R_50", "voc", "voc")
