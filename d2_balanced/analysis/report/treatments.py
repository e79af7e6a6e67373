"""The treatments of each imbalance, and how to switch them on. The overrides fit any config with ``BalancedROIHeads``.

At a seat there is one component, so that a second one replaces it; and beside some seats' components, those of others
are refused (``modeling/roi_heads/check_axes.py``). Hence a treatment depends on what is on already.
"""

from __future__ import annotations

from typing import Dict, FrozenSet, List, Mapping, NamedTuple, Tuple

from detectron2.utils.registry import Registry

from ...modeling.registry import (
    BOX_LOSS_REGISTRY,
    IOU_BRANCH_REGISTRY,
    PROPOSAL_MATCHER_REGISTRY,
    PROPOSAL_SAMPLER_REGISTRY,
    STAGES_REGISTRY,
)

__all__ = ["TREATMENTS", "Treatment", "adapted", "refused_beside"]


class Seat(NamedTuple):
    """A seat that holds one component. ``excludes``: the seat whose components are refused beside those of this one."""

    registry: Registry
    default: str
    excludes: str = ""


SEATS: Dict[str, Seat] = {
    "matcher": Seat(PROPOSAL_MATCHER_REGISTRY, "FixedMatcher"),
    "sampler": Seat(PROPOSAL_SAMPLER_REGISTRY, "RandomSampler"),
    "box loss": Seat(BOX_LOSS_REGISTRY, "SmoothL1", excludes="IoU branch"),
    "stages": Seat(STAGES_REGISTRY, "SingleStage"),
    # It regresses the boxes with a loss of its own.
    "IoU branch": Seat(IOU_BRANCH_REGISTRY, "PredictorBoxes", excludes="box loss"),
}


class Treatment(NamedTuple):
    """A component of a paper.

    ``component``: the name in ``RunData.components`` that tells that it is on; ``readme``, ``fragment``: paths in the
    repository; ``yaml``, ``lazy``: overrides, empty where a fragment is the way; ``function``: the fragment's
    LazyConfig twin, where there is no ``lazy``; ``seat``: one of ``SEATS``, or empty: it replaces and excludes nothing.

    By component that is on: ``combined``, the fields that are others so that both are on; ``notes``, what to know.
    ``in_place_of`` and ``note`` are filled in by ``adapted``.
    """

    name: str
    component: str
    readme: str = ""
    fragment: str = ""
    yaml: str = ""
    lazy: str = ""
    function: str = ""
    seat: str = ""
    combined: Mapping[str, Mapping[str, str]] = {}
    notes: Mapping[str, str] = {}
    in_place_of: Tuple[str, ...] = ()
    note: str = ""


def refused_beside(treatment: Treatment, components: FrozenSet[str]) -> List[str]:
    """Those of the components in use beside which this treatment is refused."""
    return _at_seat(SEATS[treatment.seat].excludes, components) if treatment.seat else []


def adapted(treatment: Treatment, components: FrozenSet[str]) -> Treatment:
    """The treatment as it is switched on beside the components in use, and which of them it replaces."""
    for component in sorted(components & set(treatment.combined)):
        treatment = treatment._replace(**treatment.combined[component])
    replaced = [name for name in _at_seat(treatment.seat, components) if name not in treatment.combined]
    note = " ".join(treatment.notes[component] for component in sorted(components & set(treatment.notes)))
    return treatment._replace(in_place_of=tuple(replaced), note=note)


def _at_seat(seat: str, components: FrozenSet[str]) -> List[str]:
    """The components in use at a seat, without its default. They may come from another package."""
    if not seat:
        return []
    return [name for name in sorted(components) if name in SEATS[seat].registry and name != SEATS[seat].default]


_LIBRA, _DYNAMIC, _RGA = "projects/LibraRCNN", "projects/DynamicRCNN", "projects/RGA_PRM"
_SAMPLER, _LAZY_SAMPLER = "MODEL.BALANCED.SAMPLER", "model.roi_heads.proposal_sampler"
_FIRST_BRANCH = "The LazyConfig override is for the first branch; model.roi_heads.branches has the others."
_OWN_SAMPLER = f"A branch of MODEL.BALANCED.BRANCHES with a SAMPLER of its own takes it there. {_FIRST_BRANCH}"
_PRM_BRANCHES = "[{POSITIVE_FRACTION: 0.5}, {POSITIVE_FRACTION: 0.1}]"


def _iou_balanced_with(positives: str) -> Dict[str, str]:
    """IoU-balanced negatives beside the positives that are drawn already."""
    return {
        "yaml": f"{_SAMPLER}.NAME IoUBalancedSampler {_SAMPLER}.POSITIVES {positives}",
        "lazy": f"{_LAZY_SAMPLER}._target_=IoUBalancedSampler {_LAZY_SAMPLER}.positives={positives}",
    }


def _in_three_stages(loss: str) -> Dict[str, str]:
    """A cascade's LazyConfig has a predictor for each stage."""
    return {"lazy": " ".join(f"model.roi_heads.box_predictor.{k}.box_loss._target_={loss}" for k in range(3))}


TREATMENTS: Dict[str, Treatment] = {
    "iou_balanced_negatives": Treatment(
        "IoU-balanced negatives (Libra R-CNN)", "IoUBalancedSampler", f"{_LIBRA}/README.md",
        f"{_LIBRA}/configs/components/iou_balanced_sampling.yaml", f"{_SAMPLER}.NAME IoUBalancedSampler",
        f"{_LAZY_SAMPLER}._target_=IoUBalancedSampler", seat="sampler",
        combined={
            "InstanceBalancedSampler": _iou_balanced_with("instance_balanced"),
            "HardRatioSampler": {**_iou_balanced_with("hard_ratio"), "fragment": ""},  # it has other positives
        },
        notes={"branches": _OWN_SAMPLER},
    ),
    "instance_balanced_positives": Treatment(
        "instance-balanced positives (Libra R-CNN)", "InstanceBalancedSampler", f"{_LIBRA}/README.md",
        "", f"{_SAMPLER}.NAME InstanceBalancedSampler",
        f"{_LAZY_SAMPLER}._target_=InstanceBalancedSampler", seat="sampler",
        combined={
            "IoUBalancedSampler": {
                "yaml": f"{_SAMPLER}.POSITIVES instance_balanced",
                "lazy": f"{_LAZY_SAMPLER}.positives=instance_balanced",
            },
        },
        notes={"branches": _OWN_SAMPLER},
    ),
    "balanced_l1": Treatment(
        "balanced L1 loss (Libra R-CNN)", "BalancedL1", f"{_LIBRA}/README.md",
        f"{_LIBRA}/configs/components/balanced_l1.yaml", "MODEL.BALANCED.BOX_LOSS.NAME BalancedL1",
        "model.roi_heads.box_predictor.box_loss._target_=BalancedL1", seat="box loss",
        combined={"CascadeStages": _in_three_stages("BalancedL1")}, notes={"branches": _FIRST_BRANCH},
    ),
    "dynamic_labels": Treatment(
        "dynamic label assignment (Dynamic R-CNN)", "DynamicMatcher", f"{_DYNAMIC}/README.md",
        f"{_DYNAMIC}/configs/components/dynamic_label_assignment.yaml",
        'MODEL.BALANCED.MATCHER.NAME DynamicMatcher MODEL.ROI_HEADS.IOU_THRESHOLDS "[0.4]"',
        "model.roi_heads.proposal_matcher._target_=DynamicMatcher model.roi_heads.proposal_matcher.thresholds=[0.4]",
        seat="matcher",
    ),
    "dynamic_smooth_l1": Treatment(
        "dynamic SmoothL1 (Dynamic R-CNN)", "DynamicSmoothL1", f"{_DYNAMIC}/README.md",
        f"{_DYNAMIC}/configs/components/dynamic_smooth_l1.yaml", "MODEL.BALANCED.BOX_LOSS.NAME DynamicSmoothL1",
        "model.roi_heads.box_predictor.box_loss._target_=DynamicSmoothL1", seat="box loss",
        combined={"CascadeStages": _in_three_stages("DynamicSmoothL1")}, notes={"branches": _FIRST_BRANCH},
    ),
    "gradient_annealing": Treatment(
        "R-CNN gradient annealing (RGA)", "GradientAnnealing", f"{_RGA}/README.md",
        f"{_RGA}/configs/components/rga.yaml",
        "SOLVER.GRADIENT_ANNEALING.INITIAL 7.0", "train.gradient_annealing.initial=7.0",
    ),
    "parallel_branches": Treatment(
        "parallel R-CNN modules (PRM)", "branches", f"{_RGA}/README.md", f"{_RGA}/configs/components/prm.yaml",
        f'MODEL.BALANCED.BRANCHES "{_PRM_BRANCHES}"', "", f"prm(model) of {_RGA}/configs/components/rga_prm.py",
    ),
    "generated_boxes": Treatment(
        "boxes generated uniformly in IoU (IoU-Uniform R-CNN)", "IoUBranch", "projects/IoUUniformRCNN/README.md",
        "projects/IoUUniformRCNN/configs/components/iou_uniform.yaml",
        function="iou_uniform(model) of projects/IoUUniformRCNN/configs/components/iou_uniform.py", seat="IoU branch",
    ),
    "loops": Treatment(
        "one head in a loop (R3-CNN)", "RecursiveStages", "projects/R3CNN/README.md",
        "projects/R3CNN/configs/components/loops.yaml",
        function="loops(model) of projects/R3CNN/configs/components/r3.py", seat="stages",
        notes={"CascadeStages": "In LazyConfig, loops(model) takes a model with one head, such as faster_rcnn's."},
    ),
    "repeat_factor": Treatment(
        "repeat-factor sampling of images (detectron2)", "", "",
        "", "DATALOADER.SAMPLER_TRAIN RepeatFactorTrainingSampler DATALOADER.REPEAT_THRESHOLD 0.1",
        "dataloader.train.repeat_threshold=0.1",
    ),
}  # fmt: skip
