from .multistep import multistep

batch_size = 16
max_iter = 90000
lr_multiplier = multistep(max_iter, steps=[60000, 80000])
