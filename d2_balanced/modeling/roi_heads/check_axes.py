"""Refuses combinations of the axes of ``BalancedROIHeads`` that cannot work, naming both sides."""

from ..box_losses import SmoothL1
from .stages import SingleStage

__all__ = ["check_axes"]


def check_axes(heads):
    """Raise ``ValueError`` if the stages, branches and options of these ``BalancedROIHeads`` do not fit together."""
    _check_num_heads(heads)
    _check_test_branches(heads)
    _check_first_threshold(heads)
    if heads.iou_branch.replaces_regressor:
        for branch in heads.branches:
            branch.for_each_predictor(lambda predictor: _check_replaced(heads.iou_branch, predictor))
    heads.mask_branch.check(heads)
    if heads.mask_iou_head is not None and not heads.mask_on:
        raise ValueError(
            "BalancedROIHeads: mask_iou_head (MODEL.BALANCED.MASK_IOU_HEAD) needs masks: set MODEL.MASK_ON, or leave "
            "it out"
        )
    if heads.train_on_pred_boxes and heads.stages.num_train > 1:
        raise ValueError(
            f"BalancedROIHeads: train_on_pred_boxes (MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES) needs a single stage, but "
            f"stages ({type(heads.stages).__name__}) has {heads.stages.num_train}; switch one of them off"
        )


def _check_num_heads(heads):
    stages = heads.stages
    wanted = None if stages.shared_head or stages.num_train == 1 else stages.num_train
    for p, branch in enumerate(heads.branches):
        if branch.num_heads != wanted:
            have = "one head" if branch.num_heads is None else f"a list of {branch.num_heads} heads"
            need = "one head" if wanted is None else f"a list of {wanted} heads, one a stage"
            raise ValueError(
                f"BalancedROIHeads: stages ({type(stages).__name__}, {stages.num_train} in training) needs {need} in "
                f"every branch, but branch {p} has {have}"
            )


def _check_test_branches(heads):
    allowed = range(len(heads.branches))
    unknown = [p for p in heads.test_branches if p not in allowed]
    if unknown:
        raise ValueError(
            f"BalancedROIHeads: test_branches (MODEL.BALANCED.TEST_BRANCHES) must be indices from 0 to "
            f"{len(heads.branches) - 1}, one of the {len(heads.branches)} branches, got {unknown}"
        )


def _check_first_threshold(heads):
    """The first stage is matched by the heads' own matcher; the stages' first threshold would be read by nobody."""
    thresholds = getattr(heads.proposal_matcher, "thresholds", None)  # -inf, those given, inf; an adaptive one has none
    if thresholds is None or isinstance(heads.stages, SingleStage):
        return
    if thresholds[-2] != heads.stages.ious[0]:
        raise ValueError(
            f"BalancedROIHeads: the first of the stages' ious (MODEL.ROI_BOX_CASCADE_HEAD.IOUS) is "
            f"{heads.stages.ious[0]}, but proposal_matcher (MODEL.ROI_HEADS.IOU_THRESHOLDS), which matches the first "
            f"stage, has the threshold {thresholds[-2]}; make them equal"
        )


def _check_replaced(iou_branch, predictor):
    """A predictor whose regressor is not used must not have been given a box loss."""
    loss = getattr(predictor, "box_loss", None)
    beta = getattr(predictor, "smooth_l1_beta", 0.0) if loss is None else getattr(loss, "beta", None)
    loss_type = getattr(predictor, "box_reg_loss_type", "smooth_l1")
    weight = getattr(predictor, "loss_weight", {}).get("loss_box_reg", 1.0)
    unused = {
        "box_loss (MODEL.BALANCED.BOX_LOSS)": None if isinstance(loss, (SmoothL1, type(None))) else type(loss).__name__,
        "smooth_l1_beta (MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA)": beta,
        "box_reg_loss_type (MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE)": loss_type if loss_type != "smooth_l1" else None,
        "loss_weight (MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT)": weight if weight != 1 else None,
    }
    for setting, value in unused.items():
        if value:
            raise ValueError(
                f"BalancedROIHeads: iou_branch ({type(iou_branch).__name__}, MODEL.BALANCED.IOU_BRANCH) regresses the "
                f"boxes with a loss of its own, so that the predictors' {setting} {value} would have no effect; leave "
                "one of them out"
            )

