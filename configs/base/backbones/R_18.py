"""ResNet-18 from scratch, for small images: nothing is frozen, batch norm is trained."""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone.resnet import BasicStem, ResNet

bottom_up = L(ResNet)(
    stem=L(BasicStem)(in_channels=3, out_channels=64, norm="BN"),
    stages=L(ResNet.make_default_stages)(depth=18, norm="BN"),
    out_features="${..in_features}",
    freeze_at=0,
)
pretrained = dict(init_checkpoint="", pixel_mean=[127.5, 127.5, 127.5], pixel_std=[64.0, 64.0, 64.0])
