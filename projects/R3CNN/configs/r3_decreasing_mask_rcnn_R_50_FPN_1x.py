from ....configs.base.compose import compose
from .components.r3 import full_scale, loop_masks, loops

model, data, dataloader, optimizer, lr_multiplier, train = compose("mask_rcnn", "R_50", "1x")
loops(model, ious=[0.7, 0.6, 0.5], loss_weights=[1.0, 0.75, 0.5])
loop_masks(model)
full_scale(model)
model.roi_heads.proposal_matcher.thresholds = [0.7]
