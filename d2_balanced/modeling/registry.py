"""Registries of the components that detectron2 has no registry for.

ROI heads, box and mask heads, proposal generators, backbones and meta-architectures use detectron2's own registries.
A registered object is a class (or a function) with explicit keyword arguments, which it validates itself.
"""

from detectron2.utils.registry import Registry

__all__ = [
    "PROPOSAL_MATCHER_REGISTRY",
    "PROPOSAL_SAMPLER_REGISTRY",
    "CLS_LOSS_REGISTRY",
    "BOX_LOSS_REGISTRY",
    "BOX_CODER_REGISTRY",
    "STAGES_REGISTRY",
    "IOU_BRANCH_REGISTRY",
    "MASK_BRANCH_REGISTRY",
    "MASK_IOU_HEAD_REGISTRY",
    "POOLER_REGISTRY",
    "EXTRA_PROPOSALS_REGISTRY",
    "SAMPLE_WEIGHTS_REGISTRY",
    "NMS_REGISTRY",
]

PROPOSAL_MATCHER_REGISTRY = Registry("PROPOSAL_MATCHER")
PROPOSAL_MATCHER_REGISTRY.__doc__ = """
Matchers of proposals to ground truth: ``matcher(match_quality_matrix (M, N)) -> (matched_idxs (N,), labels (N,))``.
"""

PROPOSAL_SAMPLER_REGISTRY = Registry("PROPOSAL_SAMPLER")
PROPOSAL_SAMPLER_REGISTRY.__doc__ = """
Samplers of a minibatch: ``sampler(labels (N,), ious (N,), matched_idxs (N,), num_samples, positive_fraction, bg_label)
-> (positive indices, negative indices)``.
"""

CLS_LOSS_REGISTRY = Registry("CLS_LOSS")
CLS_LOSS_REGISTRY.__doc__ = """
Classification losses: ``loss(logits (R, K+1), labels (R,)) -> (R,)``, unreduced; label K is the background.
"""

BOX_LOSS_REGISTRY = Registry("BOX_LOSS")
BOX_LOSS_REGISTRY.__doc__ = """
Box regression losses: ``loss(pred (F, 4), target (F, 4)) -> (F, 4) or (F,)``, unreduced, of deltas or of boxes.
"""

BOX_CODER_REGISTRY = Registry("BOX_CODER")
BOX_CODER_REGISTRY.__doc__ = """
Box coders beside detectron2's ``Box2BoxTransform``, whose interface they have: see ``box_coders/seat.py``.
"""

STAGES_REGISTRY = Registry("STAGES")
STAGES_REGISTRY.__doc__ = """
Topologies along the stage axis of ``BalancedROIHeads`` (single, cascade, recursive).
"""

IOU_BRANCH_REGISTRY = Registry("IOU_BRANCH")
IOU_BRANCH_REGISTRY.__doc__ = """
IoU branches of ``BalancedROIHeads``: a box regressor and an IoU predictor of their own.
"""

MASK_BRANCH_REGISTRY = Registry("MASK_BRANCH")
MASK_BRANCH_REGISTRY.__doc__ = """
What the mask head of ``BalancedROIHeads`` trains on, and how the masks of several stages are merged.
"""

MASK_IOU_HEAD_REGISTRY = Registry("MASK_IOU_HEAD")
MASK_IOU_HEAD_REGISTRY.__doc__ = """
Heads that predict the IoU of predicted masks: modules ``head(features (R, C, h, w), masks (R, 1, 2h, 2w)) -> (R, K)``
with a ``loss_weight``.
"""

POOLER_REGISTRY = Registry("POOLER")
POOLER_REGISTRY.__doc__ = """
Poolers of RoI features beside detectron2's ``ROIPooler``: ``pooler(list of feature maps, list of Boxes) -> (R, C, h, w)``.
"""

EXTRA_PROPOSALS_REGISTRY = Registry("EXTRA_PROPOSALS")
EXTRA_PROPOSALS_REGISTRY.__doc__ = """
Boxes that join the proposals of the first stage in training: ``extra(labeled, targets, num_classes) -> [Boxes]``.
"""

SAMPLE_WEIGHTS_REGISTRY = Registry("SAMPLE_WEIGHTS")
SAMPLE_WEIGHTS_REGISTRY.__doc__ = """
What weighs the samples of a minibatch, or chooses them, by what is predicted for them: see ``sample_weights/seat.py``.
"""

NMS_REGISTRY = Registry("NMS")
NMS_REGISTRY.__doc__ = """
Suppressions of duplicates at inference: ``nms(boxes, scores, image sizes, Predicted) -> [Instances]``; see
``suppression/seat.py``.
"""
