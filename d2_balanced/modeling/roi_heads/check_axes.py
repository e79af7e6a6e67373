"""Refuses combinations of the axes of ``BalancedROIHeads`` that cannot work, naming both sides."""

from detectron2.modeling.box_regression import Box2BoxTransform

from ...utils.errors import Refusal
from ..box_losses import SmoothL1
from ..sampling import RandomSampler
from .mask_branch import without_masks
from .stages import SingleStage

__all__ = ["check_axes"]


def check_axes(heads):
    """Raise ``Refusal`` if the stages, branches and options of these ``BalancedROIHeads`` do not go together."""
    _check_num_heads(heads)
    _check_test_branches(heads)
    _check_first_threshold(heads)
    if heads.iou_branch.replaces_regressor:
        for branch in heads.branches:
            branch.for_each_predictor(lambda predictor: _check_replaced(heads.iou_branch, predictor))
    _check_sample_weights(heads)
    _check_nms(heads)
    heads.mask_branch.check(heads)
    if heads.mask_iou_head is not None and not heads.mask_on:
        raise without_masks("mask_iou_head (MODEL.BALANCED.MASK_IOU_HEAD)")
    if heads.train_on_pred_boxes and heads.stages.num_train > 1:
        option = "train_on_pred_boxes (MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES)"
        raise Refusal(option, _stages(heads), f"it needs a single stage, and there are {heads.stages.num_train}")


def _check_sample_weights(heads):
    weights = heads.sample_weights
    name = f"sample_weights={type(weights).__name__} (MODEL.BALANCED.SAMPLE_WEIGHTS)"
    if weights.weighs or weights.chooses:
        for branch in heads.branches:
            branch.for_each_predictor(lambda predictor: _check_tells_losses(name, predictor))
    if heads.iou_branch.replaces_regressor:
        _check_reads_no_boxes(heads, weights, name)
    if weights.takes_all_proposals:
        _check_takes_all(heads, weights, name)


def _check_reads_no_boxes(heads, weights, name):
    reason = "the predictor's boxes and their losses are read or weighed, but the IoU branch regresses the boxes"
    if weights.reads_boxes:
        raise Refusal(name, _iou_branch(heads), reason, weights.without_boxes)
    if weights.reads_boxes is None and (weights.weighs or weights.chooses):
        remedy = "set its attribute reads_boxes to False if that is not so, or leave one of them out"
        raise Refusal(name, _iou_branch(heads), f"it does not say whether {reason}", remedy)


def _check_tells_losses(name, predictor):
    if not hasattr(predictor, "roi_losses"):
        other = f"box_predictor={type(predictor).__name__}"
        raise Refusal(name, other, "it does not tell the losses of every RoI", "take BalancedFastRCNNOutputLayers")
    if getattr(predictor, "use_fed_loss", False):
        other = "use_fed_loss=True (MODEL.ROI_BOX_HEAD.USE_FED_LOSS)"
        raise Refusal(name, other, "federated losses are drawn at random for the whole batch")


def _check_takes_all(heads, weights, name):
    """Without sampling nothing reads what the samplers, and mostly the shares of positives, are set to."""
    for sampler in (branch.sampler for branch in heads.branches):
        if type(sampler) is not RandomSampler or sampler.neg_pos_ub != -1:
            other = f"sampler={type(sampler).__name__} (MODEL.BALANCED.SAMPLER, .BRANCHES)"
            raise Refusal(name, other, "all proposals are taken, and the sampler would draw nothing", weights.to_sample)
    if not weights.keeps_fraction and len({branch.positive_fraction for branch in heads.branches}) > 1:
        fractions = [branch.positive_fraction for branch in heads.branches]
        other = f"branches with the shares of positives {fractions} (MODEL.BALANCED.BRANCHES)"
        raise Refusal(name, other, "all proposals are taken, and nothing reads the shares", weights.to_keep_fraction)


def _iou_branch(heads):
    return f"iou_branch={type(heads.iou_branch).__name__} (MODEL.BALANCED.IOU_BRANCH)"


def _stages(heads):
    return f"stages={type(heads.stages).__name__} (MODEL.BALANCED.STAGES)"


def _check_num_heads(heads):
    stages = heads.stages
    wanted = None if stages.shared_head or stages.num_train == 1 else stages.num_train
    for p, branch in enumerate(heads.branches):
        if branch.num_heads != wanted:
            have = "one head" if branch.num_heads is None else f"a list of {branch.num_heads} heads"
            need = "one head" if wanted is None else f"a list of {wanted} heads, one a stage"
            raise Refusal(f"branch {p} with {have}", _stages(heads), "they need as many", f"give every branch {need}")


def _check_test_branches(heads):
    unknown = [p for p in heads.test_branches if p not in range(len(heads.branches))]
    if unknown:
        raise Refusal(
            f"test_branches={unknown} (MODEL.BALANCED.TEST_BRANCHES)", f"{len(heads.branches)} branch(es)",
            "there is no such branch", f"give indices from 0 to {len(heads.branches) - 1}",
        )  # fmt: skip


def _check_nms(heads):
    """A suppression gets what it asks for."""
    name = f"{type(heads.nms).__name__} (MODEL.BALANCED.NMS)"
    if getattr(heads.nms, "wants_ious", False) and not heads.iou_branch.predicts_ious:
        other = f"iou_branch={type(heads.iou_branch).__name__} (MODEL.BALANCED.IOU_BRANCH)"
        raise Refusal(f"nms={name}", other, "nothing predicts IoUs", "take an IoUBranch with predict_iou")
    if getattr(heads.nms, "wants_variances", False):
        for last in _predictors_of_detections(heads):
            _check_variances(heads, last, f"nms={name}")
    if getattr(heads.nms, "joint", False):
        _check_joint(heads, f"nms={name} with joint")


def _predictors_of_detections(heads):
    """Those whose boxes the suppression gets: one of every branch that is used, where it joins their boxes."""
    if not getattr(heads.nms, "joint", False):
        return [heads.test_predictor]
    return [heads.branches[p].predictor(heads.stages.num_test - 1) for p in heads.test_branches]


def _check_variances(heads, predictor, name):
    if heads.iou_branch.replaces_regressor or getattr(predictor, "bbox_log_variance", None) is None:
        other = f"box_loss={type(getattr(predictor, 'box_loss', None)).__name__} (MODEL.BALANCED.BOX_LOSS)"
        raise Refusal(name, other, "nothing predicts variances", "take a box loss that does (KLLoss)")


def _check_joint(heads, name):
    """There are several branches whose boxes can be joined, and their scores are alike."""
    if len(heads.test_branches) < 2:
        other = f"test_branches={heads.test_branches} (MODEL.BALANCED.BRANCHES, MODEL.BALANCED.TEST_BRANCHES)"
        raise Refusal(name, other, "it joins the boxes of several branches", "leave joint out")
    predictors = [heads.branches[p].predictor(0) for p in heads.test_branches]
    coders = sorted({type(getattr(predictor, "box2box_transform", None)).__name__ for predictor in predictors})
    if len(coders) > 1:
        other = f"branches with the box coders {', '.join(coders)} (MODEL.BALANCED.BOX_CODER)"
        raise Refusal(name, other, "their scores are no longer alike", "leave joint out")


def _check_first_threshold(heads):
    """The first stage is matched by the heads' own matcher; the stages' first threshold would be read by nobody."""
    thresholds = getattr(heads.proposal_matcher, "thresholds", None)  # -inf, those given, inf; an adaptive one has none
    if thresholds is None or isinstance(heads.stages, SingleStage) or thresholds[-2] == heads.stages.ious[0]:
        return
    raise Refusal(
        f"the first of the stages' ious={list(heads.stages.ious)} (MODEL.ROI_BOX_CASCADE_HEAD.IOUS)",
        f"a proposal_matcher with the threshold {thresholds[-2]} (MODEL.ROI_HEADS.IOU_THRESHOLDS)",
        "the matcher is the first stage's", "make them equal",
    )  # fmt: skip


def _check_replaced(iou_branch, predictor):
    """A predictor whose regressor is not used must not have been given a box loss, nor a loss of the IoUs of its boxes."""
    loss = getattr(predictor, "box_loss", None)
    beta = getattr(predictor, "smooth_l1_beta", 0.0) if loss is None else getattr(loss, "beta", None)
    loss_type = getattr(predictor, "box_reg_loss_type", "smooth_l1")
    weight = getattr(predictor, "loss_weight", {}).get("loss_box_reg", 1.0)
    coder = getattr(predictor, "box2box_transform", None)
    coder = None if isinstance(coder, (Box2BoxTransform, type(None))) else type(coder).__name__
    unused = {
        "box2box_transform (MODEL.BALANCED.BOX_CODER)": coder,
        "box_loss (MODEL.BALANCED.BOX_LOSS)": None if isinstance(loss, (SmoothL1, type(None))) else type(loss).__name__,
        "smooth_l1_beta (MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA)": beta,
        "box_reg_loss_type (MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE)": loss_type if loss_type != "smooth_l1" else None,
        "loss_weight (MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT)": weight if weight != 1 else None,
    }
    branch = f"iou_branch={type(iou_branch).__name__} (MODEL.BALANCED.IOU_BRANCH)"
    for setting, value in unused.items():
        if value:
            raise Refusal(f"{setting} {value}", branch, "the IoU branch regresses the boxes with its own loss")
    cls_loss = getattr(predictor, "cls_loss", None)
    if getattr(cls_loss, "wants_ious", "") == "predicted":
        loss = f"cls_loss={type(cls_loss).__name__} (MODEL.BALANCED.CLS_LOSS)"
        reason = "the loss wants the IoUs of the predictor's boxes, but the IoU branch regresses the boxes"
        raise Refusal(loss, branch, reason, "give the loss those of the proposals (ious='proposal')")
