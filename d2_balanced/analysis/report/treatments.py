"""The treatments of each imbalance, and how to switch them on. The overrides fit any config with ``BalancedROIHeads``.

At a seat there is one component, so that a second one replaces it, and some do not go with others. What that means for
a run is not written down here: a treatment is tried on the run's own config, which is checked as every config is
(``config/refusals.py``), and the model is built.
"""

from __future__ import annotations

import copy
import functools
import os
import shlex
from typing import Dict, FrozenSet, List, Mapping, NamedTuple, Optional, Tuple

from ...config import get_balanced_cfg
from ...config.check_yacs import spec_registries
from ...config.yacs import value_at
from ...engine.experiment import Experiment
from ...engine.start import CONFIG
from .gather import components_of

__all__ = ["TREATMENTS", "Treatment", "beside"]

# What stands at an empty seat; and what is no part of the model.
_NOT_REPLACED = {"SampleWeights", "GradientAnnealing"}


class Treatment(NamedTuple):
    """A component of a paper.

    ``component``: the name in ``RunData.components`` that tells that it is on; ``readme``: path in the repository;
    ``fragment``: name of what can be added (``--add``) in place of the overrides; ``yaml``, ``lazy``: overrides. Where
    there is no ``lazy``, the fragment is what switches it on in a LazyConfig.

    By component that is on: ``combined``, the fields that are others so that both are on; ``notes``, what to know.
    Filled in by ``beside``: ``command``, which trains the run's config with it; ``note``; ``in_place_of``, the
    components that are then off; ``refusal``, why it cannot be.
    """

    name: str
    component: str
    readme: str = ""
    fragment: str = ""
    yaml: str = ""
    lazy: str = ""
    command: str = ""
    combined: Mapping[str, Mapping[str, str]] = {}
    notes: Mapping[str, str] = {}
    note: str = ""
    in_place_of: Tuple[str, ...] = ()
    refusal: str = ""


def beside(treatment: Treatment, components: FrozenSet[str], experiment: Optional[Experiment]) -> Treatment:
    """The treatment as it is switched on beside the components in use.

    It is tried on the experiment, whose own way of switching it on is the only one that is left then; without an
    experiment it is not known what it replaces, and whether it is refused.
    """
    for component in sorted(components & set(treatment.combined)):
        treatment = treatment._replace(**treatment.combined[component])
    note = " ".join(treatment.notes[component] for component in sorted(components & set(treatment.notes)))
    treatment = treatment._replace(note=note)
    if experiment is None:
        return treatment
    treatment = treatment._replace(**{"lazy" if experiment.system == "yaml" else "yaml": ""})
    try:
        model = _build(experiment, treatment)
    except ValueError as error:
        return treatment._replace(refusal=str(error))
    gone = components - components_of(model) - _NOT_REPLACED - _defaults() if model is not None else ()
    return treatment._replace(in_place_of=tuple(sorted(gone)), command=_command(experiment, treatment))


@functools.lru_cache(maxsize=None)
def _defaults() -> FrozenSet[str]:
    """What stands at the seats of a detector where nothing is chosen."""
    cfg = get_balanced_cfg()
    names = {key: value_at(cfg, key).NAME for key in spec_registries()}
    return frozenset(f"{name} (RPN)" if ".RPN." in key else name for key, name in names.items())


def _words(treatment: Treatment) -> Tuple[List[str], List[str]]:
    """``(overrides, fragments)`` that switch it on."""
    words = shlex.split(treatment.yaml or treatment.lazy)
    return words, [] if words or not treatment.fragment else [treatment.fragment]


def _command(experiment: Experiment, treatment: Treatment) -> str:
    """The command that trains the run's config with the treatment, into a folder beside the run's; "" if none does."""
    overrides, fragments = _words(treatment)
    if not overrides and not fragments:
        return ""
    folder = experiment.settings.output_dir.rstrip(os.sep)
    config = os.path.join(folder, CONFIG)
    folder = f"{folder}_{treatment.component or 'treated'}"
    added = [word for name in fragments for word in ("--add", name)]
    given = ["--config-file", config if os.path.isfile(config) else "CONFIG", *added, "--output-dir", folder]
    return shlex.join(["d2_balanced", "train", *given, *overrides])


def _build(experiment: Experiment, treatment: Treatment):
    """The experiment's model with the treatment, without memory for its weights; None where that cannot be told."""
    overrides, fragments = _words(treatment)
    changed = type(experiment).from_config(copy.deepcopy(experiment.cfg), overrides, fragments=fragments)
    return changed.build_without_memory()


_LIBRA, _DYNAMIC, _RGA = "projects/LibraRCNN", "projects/DynamicRCNN", "projects/RGA_PRM"
_SAMPLER, _LAZY_SAMPLER = "MODEL.BALANCED.SAMPLER", "model.roi_heads.proposal_sampler"
_LAZY_MATCHER = "model.roi_heads.proposal_matcher"
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
        "LibraRCNN/iou_balanced_sampling", f"{_SAMPLER}.NAME IoUBalancedSampler",
        f"{_LAZY_SAMPLER}._target_=IoUBalancedSampler",
        combined={
            "InstanceBalancedSampler": _iou_balanced_with("instance_balanced"),
            "HardRatioSampler": {**_iou_balanced_with("hard_ratio"), "fragment": ""},  # it has other positives
        },
        notes={"branches": _OWN_SAMPLER},
    ),
    "instance_balanced_positives": Treatment(
        "instance-balanced positives (Libra R-CNN)", "InstanceBalancedSampler", f"{_LIBRA}/README.md",
        "", f"{_SAMPLER}.NAME InstanceBalancedSampler",
        f"{_LAZY_SAMPLER}._target_=InstanceBalancedSampler",
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
        "LibraRCNN/balanced_l1", "MODEL.BALANCED.BOX_LOSS.NAME BalancedL1",
        "model.roi_heads.box_predictor.box_loss._target_=BalancedL1",
        combined={"CascadeStages": _in_three_stages("BalancedL1")}, notes={"branches": _FIRST_BRANCH},
    ),
    "dynamic_labels": Treatment(
        "dynamic label assignment (Dynamic R-CNN)", "DynamicMatcher", f"{_DYNAMIC}/README.md",
        "DynamicRCNN/dynamic_label_assignment",
        'MODEL.BALANCED.MATCHER.NAME DynamicMatcher MODEL.ROI_HEADS.IOU_THRESHOLDS "[0.4]" '
        'MODEL.ROI_HEADS.IOU_LABELS "[0, 1]"',
        f"{_LAZY_MATCHER}._target_=DynamicMatcher {_LAZY_MATCHER}.thresholds=[0.4] {_LAZY_MATCHER}.labels=[0,1]",
    ),
    "dynamic_smooth_l1": Treatment(
        "dynamic SmoothL1 (Dynamic R-CNN)", "DynamicSmoothL1", f"{_DYNAMIC}/README.md",
        "DynamicRCNN/dynamic_smooth_l1", "MODEL.BALANCED.BOX_LOSS.NAME DynamicSmoothL1",
        "model.roi_heads.box_predictor.box_loss._target_=DynamicSmoothL1",
        combined={"CascadeStages": _in_three_stages("DynamicSmoothL1")}, notes={"branches": _FIRST_BRANCH},
    ),
    "gradient_annealing": Treatment(
        "R-CNN gradient annealing (RGA)", "GradientAnnealing", f"{_RGA}/README.md",
        "RGA_PRM/rga",
        "SOLVER.GRADIENT_ANNEALING.INITIAL 7.0", "train.gradient_annealing.initial=7.0",
    ),
    "parallel_branches": Treatment(
        "parallel R-CNN modules (PRM)", "branches", f"{_RGA}/README.md", "RGA_PRM/prm",
        f'MODEL.BALANCED.BRANCHES "{_PRM_BRANCHES}"',
    ),
    "generated_boxes": Treatment(
        "boxes generated uniformly in IoU (IoU-Uniform R-CNN)", "IoUBranch", "projects/IoUUniformRCNN/README.md",
        "IoUUniformRCNN/iou_uniform", "MODEL.BALANCED.IOU_BRANCH.NAME IoUBranch",
    ),
    "loops": Treatment(
        "one head in a loop (R3-CNN)", "RecursiveStages", "projects/R3CNN/README.md",
        "R3CNN/loops",
        'MODEL.BALANCED.STAGES.NAME RecursiveStages MODEL.BALANCED.STAGES.LOSS_WEIGHTS "[1.0, 0.75, 0.5]" '
        'MODEL.ROI_BOX_CASCADE_HEAD.IOUS "[0.5, 0.6, 0.7]" MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG True',
        combined={"CascadeStages": {"fragment": ""}},
        notes={"CascadeStages": "In LazyConfig, R3CNN/loops takes a model with one head, such as faster_rcnn's."},
    ),
    "repeat_factor": Treatment(
        "repeat-factor sampling of images (detectron2)", "", "",
        "", "DATALOADER.SAMPLER_TRAIN RepeatFactorTrainingSampler DATALOADER.REPEAT_THRESHOLD 0.1",
        "dataloader.train.repeat_threshold=0.1",
    ),
}  # fmt: skip
