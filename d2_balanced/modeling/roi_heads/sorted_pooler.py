"""detectron2's ``ROIPooler`` with the boxes of every level found in one go.

Shape shorthand: N: images; R: boxes of all images; C: channels; h, w: size of the pooled features.
"""

import torch
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels
from detectron2.structures import Boxes

from ..image_rows import repeat
from .bag_roi_align import bag_roi_align

__all__ = ["SortedROIPooler"]


class SortedROIPooler(ROIPooler):
    """``ROIPooler`` that sorts the boxes by their level, so that the host waits for the device once, not once a level.

    Features and gradients are those of ``ROIPooler``, to the bit, and there are no weights; on the CPU, from maps with their
    channels last, they are equal but for rounding (``bag_roi_align.py``). Arguments are its own.
    """

    def forward(self, x, box_lists):
        """Feature maps, a list of (N, C, H, W), and N ``Boxes`` -> (R, C, h, w)."""
        if len(self.level_poolers) == 1 or not box_lists or torch.jit.is_tracing():
            return super().forward(x, box_lists)
        boxes = Boxes.cat(box_lists)
        image = torch.arange(len(box_lists), dtype=boxes.tensor.dtype, device=boxes.device)
        rois = torch.cat([repeat(image, [len(each) for each in box_lists])[:, None], boxes.tensor], dim=1)
        settings = (self.min_level, self.max_level, self.canonical_box_size, self.canonical_level)
        levels, order = assign_boxes_to_levels([boxes], *settings).sort(stable=True)
        all_levels = torch.arange(len(x), device=levels.device)
        counts = (levels == all_levels[:, None]).sum(dim=1).tolist()
        output = x[0].new_zeros(len(rois), x[0].shape[1], *self.output_size)
        for level, pooler, rows in zip(x, self.level_poolers, order.split(counts)):
            output.index_put_((rows,), _pool(pooler, level, rois[rows]))
        return output


def _pool(pooler, level, rois):
    """What a level's pooler makes of its map and RoIs."""
    channels_last = not level.is_contiguous() and level.is_contiguous(memory_format=torch.channels_last)
    if channels_last and level.device.type == "cpu" and type(pooler) is ROIAlign and pooler.aligned:
        return bag_roi_align(level, rois, pooler.output_size, pooler.spatial_scale, pooler.sampling_ratio)
    return pooler(level, rois)
