"""A mask head that can take in the mask features of the stage before it (R3-CNN sec. 4.3; Hybrid Task Cascade)."""

import fvcore.nn.weight_init as weight_init
from detectron2.config import configurable
from detectron2.layers import Conv2d
from detectron2.modeling.roi_heads.mask_head import ROI_MASK_HEAD_REGISTRY, MaskRCNNConvUpsampleHead

__all__ = ["FlowMaskHead"]


@ROI_MASK_HEAD_REGISTRY.register()
class FlowMaskHead(MaskRCNNConvUpsampleHead):
    """Mask R-CNN's convolutional head with an entry for the features of the previous stage.

    The keys are those of ``MaskRCNNConvUpsampleHead``, plus ``previous`` (a 1x1 convolution, followed by ReLU).

    Args:
        takes_previous: without it there is no such entry; for a head that never has a stage before it.
        conv_dims, kwargs: as for ``MaskRCNNConvUpsampleHead``.
    """

    @configurable
    def __init__(self, input_shape, *, conv_dims, takes_previous=True, **kwargs):
        super().__init__(input_shape, conv_dims=conv_dims, **kwargs)
        if takes_previous:
            feature_channels = conv_dims[-2] if len(conv_dims) > 1 else input_shape.channels
            self.previous = Conv2d(feature_channels, input_shape.channels, 1)
            weight_init.c2_msra_fill(self.previous)

    def features(self, pooled, previous):
        """Mask features (R, C, h, w) of pooled RoI features (R, C', h, w), and of the stage before (or ``None``)."""
        x = pooled if previous is None else pooled + self.previous(previous).relu()
        for conv in self.conv_norm_relus:
            x = conv(x)
        return x

    def predict(self, features):
        """Mask logits (R, K, 2h, 2w) of mask features."""
        return self.predictor(self.deconv_relu(self.deconv(features)))

    def layers(self, x):
        return self.predict(self.features(x, None))
