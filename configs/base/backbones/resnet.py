"""ResNet and ResNeXt bottom-ups as LazyConfig nodes, with frozen batch norm and the first two stages frozen."""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone.resnet import BasicStem, BottleneckBlock, ResNet

_BLOCKS = {50: [3, 4, 6, 3], 101: [3, 4, 23, 3]}


def resnet(depth):
    """ResNet ``depth`` (50 or 101) with the stride in the 1x1 convolution, as MSRA's weights have it."""
    return L(ResNet)(
        stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
        stages=L(ResNet.make_default_stages)(depth=depth, stride_in_1x1=True, norm="FrozenBN"),
        out_features="${..in_features}",
        freeze_at=2,
    )


def resnext(depth, groups, width_per_group):
    """ResNeXt ``depth``, ``groups`` x ``width_per_group``, with the stride in the 3x3 convolution."""
    node = resnet(depth)
    node.stages = [
        L(ResNet.make_stage)(
            block_class=BottleneckBlock,
            num_blocks=blocks,
            stride_per_block=[1 if k == 0 else 2] + [1] * (blocks - 1),
            in_channels=64 if k == 0 else 128 * 2**k,
            out_channels=256 * 2**k,
            bottleneck_channels=groups * width_per_group * 2**k,
            num_groups=groups,
            stride_in_1x1=False,
            norm="FrozenBN",
        )
        for k, blocks in enumerate(_BLOCKS[depth])
    ]
    return node
