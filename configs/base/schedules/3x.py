from .multistep import multistep

batch_size = 16
max_iter = 270000
lr_multiplier = multistep(max_iter, steps=[210000, 250000])
