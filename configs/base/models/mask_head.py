"""What makes a Mask R-CNN of a box detector: arguments to add to its ROI heads."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import MaskRCNNConvUpsampleHead

from d2_balanced.modeling.roi_heads.sorted_pooler import SortedROIPooler

mask = dict(
    mask_in_features=["p2", "p3", "p4", "p5"],
    mask_pooler=L(SortedROIPooler)(
        output_size=14,
        scales=(1.0 / 4, 1.0 / 8, 1.0 / 16, 1.0 / 32),
        sampling_ratio=0,
        pooler_type="ROIAlignV2",
    ),
    mask_head=L(MaskRCNNConvUpsampleHead)(
        input_shape=L(ShapeSpec)(channels=256, height=14, width=14),
        num_classes="${..num_classes}",
        conv_dims=[256, 256, 256, 256, 256],
    ),
)
