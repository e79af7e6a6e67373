"""What becomes of choices that are made together: the detector is built small, and takes a training and a test step."""

import functools
import math
import zlib
from types import SimpleNamespace
from typing import Any, Dict, NamedTuple, Optional

import choices
import torch
import twins
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances, Keypoints, PolygonMasks
from detectron2.utils.events import EventStorage

from d2_balanced.config import check_config, get_balanced_cfg, load_yaml, merge_overrides
from d2_balanced.engine.from_yacs import annealing_settings
from d2_balanced.engine.gradient_annealing import annealing_hooks
from d2_balanced.modeling.ignore_regions import TargetsWithRegions

HEIGHT, WIDTH = 64, 96
OBJECTS = (
    torch.tensor(
        [[3.0, 5.0, 36.0, 37.0], [40.0, 2.0, 94.0, 62.0], [20.0, 30.0, 40.0, 48.0]]
        + [[0.0, 40.0, 17.0, 60.0], [64.0, 16.0, 80.0, 32.0], [32.0, 0.0, 64.0, 30.0]]
    ),
    torch.tensor([[8.0, 20.0, 90.0, 31.0]]),
)
TINY = {
    "MODEL.DEVICE": "cpu",
    "MODEL.BACKBONE.FREEZE_AT": 5,  # the ResNet is not what is looked at, and need not be trained
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 4,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 8,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 4,
    "MODEL.FPN.OUT_CHANNELS": 8,
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 100,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 60,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 60,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 20,
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 8,  # 4 positives, fewer than there are
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 16,  # 4 positives: fewer than in the first image, more than in the second
    "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 4,
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 1,
    "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 1,
    "MODEL.RETINANET.NUM_CONVS": 1,
    "TEST.DETECTIONS_PER_IMAGE": 10,
}


class Outcome(NamedTuple):
    """Of choices made together."""

    refusal: Optional[ValueError]
    """The error at build time; None where the detector trains."""
    trace: Dict[str, Any]
    """Losses, gradients and detections, as numbers: equal to another outcome's where a choice made no difference."""


@functools.lru_cache(maxsize=None)
def _defaults():
    return get_balanced_cfg()


@functools.lru_cache(maxsize=None)
def _base(path):
    cfg = load_yaml(path)
    merge_overrides(cfg, [word for pair in TINY.items() for word in pair], _defaults())
    return cfg


def config_of(*chosen):
    """The yacs config of some choices, as a file of their fragments would give it."""
    cfg = _base(choices.base_of(*chosen)).clone()
    merge_overrides(cfg, [word for pair in choices.settings_of(*chosen).items() for word in pair], _defaults())
    return cfg


def outcome_of(*chosen):
    """Build, train a step, detect. Only what is refused at build time is caught; everything else is a failure."""
    try:
        cfg = config_of(*chosen)
        check_config(cfg, _defaults())
        model = build_model(cfg)
        hooks = annealing_hooks(annealing_settings(cfg), "SOLVER.GRADIENT_ANNEALING", model)
    except ValueError as error:
        return Outcome(error, {})
    fill_weights(model)
    batch = inputs(cfg)
    trace = {**_train(model, hooks, batch), **_detect(model, batch)}
    assert all(math.isfinite(number) for number in trace.values()), trace
    return Outcome(None, trace)


def fill_weights(model):
    """Random weights that depend on the parameter's name alone, so that modules beside it do not change them."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
                std = (2.0 / parameter[0].numel()) ** 0.5
                # Residuals; boxes that stay near, and are known to be.
                damped = ("conv3.", "anchor_deltas", "bbox_pred", "log_variance", "regressor")
                std *= 0.1 if any(word in name for word in damped) else 1.0
                parameter.copy_(std * torch.randn(parameter.shape, generator=generator))


def inputs(cfg):
    """An image with six objects and one with one; masks, keypoints, proposals and regions where the config asks."""
    generator = torch.Generator().manual_seed(0)
    batch = []
    for boxes in OBJECTS:
        targets = Instances((HEIGHT, WIDTH), gt_boxes=Boxes(boxes), gt_classes=torch.arange(len(boxes)) % 3)
        if cfg.MODEL.MASK_ON:
            targets.gt_masks = PolygonMasks(
                [[[x1, y1, x2, y1, x2, y2, x1, y2]] for x1, y1, x2, y2 in boxes.double().tolist()]
            )
        if cfg.MODEL.KEYPOINT_ON:
            corners = boxes.view(-1, 2, 2) + torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
            targets.gt_keypoints = Keypoints(torch.cat([corners, torch.full((len(boxes), 2, 1), 2.0)], dim=2))
        if cfg.INPUT.IGNORE_REGIONS:
            targets = TargetsWithRegions(targets, Boxes(torch.tensor([[0.0, 32.0, 96.0, 64.0]])))
        image = torch.randint(0, 256, (3, HEIGHT, WIDTH), generator=generator, dtype=torch.uint8)
        batch.append({"image": image, "instances": targets, "height": HEIGHT, "width": WIDTH})
        if cfg.MODEL.LOAD_PROPOSALS:
            batch[-1]["proposals"] = twins.proposals(boxes, generator)
    return batch


def _train(model, hooks, batch):
    """One training step, as the trainer takes it."""
    losses, storage = _losses(model, batch)
    sum(losses.values()).backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    unused = [name for name, p in trained.items() if p.grad is None]
    assert not unused, f"no gradient reaches {unused}, which breaks training with several processes"
    for hook in hooks:
        hook.trainer = SimpleNamespace(iter=0, max_iter=10, storage=storage)
        hook.scale_gradients()
    trace = {name: loss.item() for name, loss in losses.items()}
    trace.update({f"gradient of {name}": p.grad.norm().item() for name, p in trained.items()})
    torch.optim.SGD(trained.values(), lr=1e-3).step()
    for module in model.modules():
        if hasattr(module, "end_iteration"):
            module.end_iteration(0)
    return trace


def _losses(model, batch):
    model.train()
    torch.manual_seed(0)
    with EventStorage() as storage:
        return model(batch), storage


def _detect(model, batch):
    torch.manual_seed(0)
    found = twins.detections(model, batch)
    return {f"{name} {i}": number for name, value in found.items() for i, number in enumerate(_numbers(value))}


def _numbers(value):
    value = value.double()
    return [len(value), value.sum().item(), value.square().sum().item()]


_alone: Dict[str, Outcome] = {}


def outcome_alone(*choice):
    """The outcome of one choice, or of none; worked out once."""
    name = choice[0].name if choice else ""
    if name not in _alone:
        _alone[name] = outcome_of(*choice)
    return _alone[name]


def is_neutral(choice):
    """Whether a choice changes nothing: detectron2's own spelling of the default."""
    return outcome_alone(choice).trace == outcome_alone().trace


def without_effect(pair, outcome):
    """The names of those of two choices that change nothing beside the other, though they do so alone."""
    return [
        mine.name
        for mine, other in (pair, pair[::-1])
        if mine.name not in other.implies and not is_neutral(mine) and outcome.trace == outcome_alone(other).trace
    ]
