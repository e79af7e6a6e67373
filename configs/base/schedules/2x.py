from .multistep import multistep

batch_size = 16
max_iter = 180000
lr_multiplier = multistep(max_iter, steps=[120000, 160000])
