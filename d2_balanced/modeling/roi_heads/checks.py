"""Refuses combinations of the axes of ``BalancedROIHeads`` that cannot work, naming both sides."""

__all__ = ["check_axes"]


def check_axes(heads):
    """Raise ``ValueError`` if the stages, branches and options of these ``BalancedROIHeads`` do not fit together."""
    _check_num_heads(heads)
    _check_test_branches(heads)
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
