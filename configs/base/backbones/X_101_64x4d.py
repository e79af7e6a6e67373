from .resnet import resnext

bottom_up = resnext(101, groups=64, width_per_group=4)
pretrained = dict(
    init_checkpoint="catalog://ImageNetPretrained/FAIR/X-101-64x4d",
    pixel_mean=[103.530, 116.280, 123.675],
    pixel_std=[1.0, 1.0, 1.0],
)
