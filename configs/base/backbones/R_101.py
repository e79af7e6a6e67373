from .resnet import resnet

bottom_up = resnet(101)
pretrained = dict(
    init_checkpoint="detectron2://ImageNetPretrained/MSRA/R-101.pkl",
    pixel_mean=[103.530, 116.280, 123.675],
    pixel_std=[1.0, 1.0, 1.0],
)
