from .resnet import resnext

# detectron2's zoo has no ImageNet weights of this network: point train.init_checkpoint to a file of your own, whose
# training divided the images by pixel_std.
bottom_up = resnext(101, groups=32, width_per_group=4)
pretrained = dict(
    init_checkpoint="X-101-32x4d.pkl",
    pixel_mean=[103.530, 116.280, 123.675],
    pixel_std=[57.375, 57.120, 58.395],
)
