"""ResNet and ResNeXt bottom-ups as LazyConfig nodes, with frozen batch norm and the first two stages frozen."""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone.resnet import BasicStem, BottleneckBlock, DeformBottleneckBlock, ResNet

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
        _stage(depth, k, groups * width_per_group, num_groups=groups, stride_in_1x1=False) for k in range(4)
    ]
    return node


def deformable_resnet(depth, modulated):
    """ResNet ``depth`` with deformable 3x3 convolutions in res3, res4 and res5; ``modulated``: their version 2."""
    node = resnet(depth)
    deformable = dict(block_class=DeformBottleneckBlock, deform_modulated=modulated, deform_num_groups=1)
    node.stages = [_stage(depth, k, 64, stride_in_1x1=True, **(deformable if k else {})) for k in range(4)]
    return node


def _stage(depth, k, width, block_class=BottleneckBlock, **settings):
    """Stage ``k`` (0 to 3) of bottleneck blocks that are ``width`` channels wide in the first stage."""
    blocks = _BLOCKS[depth][k]
    return L(ResNet.make_stage)(
        block_class=block_class,
        num_blocks=blocks,
        stride_per_block=[1 if k == 0 else 2] + [1] * (blocks - 1),
        in_channels=64 if k == 0 else 128 * 2**k,
        out_channels=256 * 2**k,
        bottleneck_channels=width * 2**k,
        norm="FrozenBN",
        **settings,
    )
