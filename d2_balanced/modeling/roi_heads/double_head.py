"""Double-Head: fully connected layers for the classification, convolutions for the boxes."""

from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone.resnet import BottleneckBlock
from detectron2.modeling.roi_heads import ROI_BOX_HEAD_REGISTRY
from torch import nn

from ..task_features import TaskHead, TaskShapes

__all__ = ["DoubleHead"]

_EXPANSION = 4  # of a bottleneck


@ROI_BOX_HEAD_REGISTRY.register()
class DoubleHead(TaskHead):
    """Two heads on the same RoI features (Wu et al., Rethinking Classification and Localization for Object Detection,
    CVPR 2020): the classifier reads fully connected layers, which tell parts from whole objects; the box
    regressor reads convolutions and their mean over the RoI, which are surer of positions.

    The convolutions are detectron2's residual bottlenecks, of which the first raises the channels.

    Args:
        input_shape: ``ShapeSpec`` of the pooled features.
        fc_dims: of the fully connected layers, one or more; the paper's: 1024, 1024. In yacs: FC_DIM, NUM_FC times.
        conv_dim: channels inside the bottlenecks, which have four times as many outside; the paper's: 256. In yacs:
            CONV_DIM.
        num_convs: bottlenecks, 1 or more. In yacs: NUM_CONV.
        conv_norm: normalisation of the convolutions, see ``detectron2.layers.get_norm``. In yacs: NORM.

    Raises:
        ValueError: for a value out of range.
    """

    @configurable
    def __init__(self, input_shape, *, fc_dims=(1024, 1024), conv_dim=256, num_convs=5, conv_norm="BN"):
        super().__init__(input_shape, fc_dims, num_convs)
        channels = [input_shape.channels, *[_EXPANSION * conv_dim] * num_convs]
        settings = {"bottleneck_channels": conv_dim, "norm": conv_norm}
        self.conv_head = nn.Sequential(*(BottleneckBlock(*pair, **settings) for pair in zip(channels, channels[1:])))
        self._channels = channels[-1]

    def forward(self, x):
        """Pooled features (R, C, h, w) -> those of the classifier (R, fc_dims[-1]) and of the box regressor
        (R, 4 conv_dim)."""
        return self.fc_head(x), self.conv_head(x).mean(dim=(2, 3))

    @property
    def output_shape(self):
        """The ``ShapeSpec`` of each."""
        return TaskShapes(cls=self.fc_head.output_shape, box=ShapeSpec(channels=self._channels))
