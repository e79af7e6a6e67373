"""30 epochs of CrowdHuman's 15000 images."""

from .multistep import multistep

batch_size = 16
max_iter = 28125
lr_multiplier = multistep(max_iter, steps=[22500, 25312])
