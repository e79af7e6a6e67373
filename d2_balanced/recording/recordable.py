"""Makes an experiment's ROI heads recordable: detectron2's own are replaced by ``BalancedROIHeads``, which train alike.

Weights, losses, gradients and detections stay the same to the last bit (tests/modeling/roi_heads).
"""

from __future__ import annotations

from detectron2.config import CfgNode

from ..config.lazy_targets import find_target

__all__ = ["make_recordable", "record_in_training"]

_STAGES = {"StandardROIHeads": "SingleStage", "CascadeROIHeads": "CascadeStages"}
_MODELING = "d2_balanced.modeling"  # as names, so that nothing of it is imported before it is needed


def make_recordable(experiment) -> None:
    """Replace detectron2's ``StandardROIHeads`` or ``CascadeROIHeads`` in the config; leave all others as they are."""
    if isinstance(experiment.cfg, CfgNode):
        _replace_yacs(experiment.cfg.MODEL)
    else:
        _replace_lazy(experiment.cfg.model)


def record_in_training(experiment) -> None:
    """Make the experiment recordable, and switch recording on: ``ANALYSIS.RECORD``, ``train.record_imbalance``."""
    make_recordable(experiment)
    if isinstance(experiment.cfg, CfgNode):
        experiment.cfg.ANALYSIS.RECORD = True
    else:
        experiment.cfg.train.record_imbalance.enabled = True


def _replace_yacs(model) -> None:
    if model.ROI_HEADS.NAME in _STAGES:
        model.BALANCED.STAGES.NAME = _STAGES[model.ROI_HEADS.NAME]
        model.ROI_HEADS.NAME = "BalancedROIHeads"


def _replace_lazy(model) -> None:
    heads = model.get("roi_heads")
    if heads is None or "_target_" not in heads:
        return
    name = getattr(find_target(heads._target_, "model.roi_heads._target_"), "__name__", "")
    if name not in _STAGES:
        return
    heads._target_ = f"{_MODELING}.roi_heads.balanced_roi_heads.BalancedROIHeads"
    heads.proposal_sampler = {"_target_": f"{_MODELING}.sampling.RandomSampler"}
    if _STAGES[name] == "CascadeStages":
        matchers = heads.pop("proposal_matchers")
        ious = [matcher.thresholds[0] for matcher in matchers]
        heads.stages = {"_target_": f"{_MODELING}.roi_heads.stages.CascadeStages", "ious": ious}
        heads.proposal_matcher = matchers[0]
        heads.box_head, heads.box_predictor = heads.pop("box_heads"), heads.pop("box_predictors")
