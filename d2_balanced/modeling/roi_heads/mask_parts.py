"""What a mask branch works with, and the losses that its stages have in common."""

from typing import Callable, List, NamedTuple, Optional, Union

from detectron2.modeling.roi_heads.mask_head import mask_rcnn_loss
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from .mask_scoring import mask_iou_losses
from .stages import Stages

__all__ = ["MaskParts"]


class MaskParts(NamedTuple):
    """What the ROI heads lend to their mask branch in one forward pass. The modules stay the ROI heads' own."""

    mask_head: Union[nn.Module, nn.ModuleList]
    """One mask head, or one for every stage."""
    mask_iou_head: Optional[nn.Module]
    """A head that scores the masks (``MASK_IOU_HEAD_REGISTRY``), or ``None``."""
    stages: Stages
    num_classes: int
    """Number of foreground classes."""
    pool: Callable[[List[Boxes]], Tensor]
    """Function from boxes, one ``Boxes`` an image, to their mask features (R, C, h, w)."""
    label_and_sample: Callable[[List[Instances], int], List[Instances]]
    """Function from proposals and the index of a stage to the main branch's samples of them. For training only."""

    def head(self, stage):
        """The mask head of a stage."""
        return self.mask_head[stage] if isinstance(self.mask_head, nn.ModuleList) else self.mask_head

    def losses(self, mask_head, pooled, logits, foreground, scored=None):
        """``loss_mask``, and ``loss_mask_iou`` if there is a mask IoU head and masks (logits) that it is to score."""
        losses = {"loss_mask": mask_rcnn_loss(logits, foreground, mask_head.vis_period) * mask_head.loss_weight}
        if scored is not None and self.mask_iou_head is not None:
            losses.update(mask_iou_losses(self.mask_iou_head, pooled, scored, foreground))
        return losses
