"""The same weights in detectron2's own classes, where these detect the same."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Dict, List, Optional, Tuple

import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import CascadeROIHeads, StandardROIHeads
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from torch import nn

from ...modeling.meta_arch import BalancedRetinaNet
from ...modeling.proposal_generator import BalancedRPN
from ...modeling.roi_heads import BalancedROIHeads
from ...modeling.roi_heads.iou_branch import PredictorBoxes
from ...modeling.roi_heads.mask_branch import FirstStageMasks
from ...modeling.roi_heads.sorted_pooler import SortedROIPooler
from ...modeling.roi_heads.stages import CascadeStages, SingleStage
from ...modeling.suppression import NMS

__all__ = ["plain_detectron2"]


def plain_detectron2(model: nn.Module, inputs: List[Dict]) -> Tuple[Optional[nn.Module], str]:
    """detectron2's detector with this one's weights, which it shares, or ``None`` and why there is none to compare.

    Args:
        model: in evaluation mode.
        inputs: of one image, which both have to find the same in.
    """
    nms = getattr(getattr(model, "roi_heads", model), "nms", None)
    if nms is not None and (type(nms) is not NMS or nms.joint):
        return None, f"{type(nms).__name__} removes duplicates: detectron2 has no such detector"
    if type(model) is BalancedRetinaNet:
        plain = _of_class(model, RetinaNet)
    elif type(model) is GeneralizedRCNN and type(model.roi_heads) is BalancedROIHeads:
        reason = _not_plain(model.roi_heads)
        if reason:
            return None, f"{reason}: detectron2 has no such detector"
        plain = _rcnn(model)
    else:
        return None, f"{type(model).__name__} is no detector of this package"
    own = [name for name, part in plain.named_modules() if name and _is_ours(part)]
    if own:
        return None, f"{own[0]} is of this package"
    with torch.no_grad():
        one, other = model(inputs)[0]["instances"], plain(inputs)[0]["instances"]
    if len(one) != len(other) or not torch.allclose(one.pred_boxes.tensor, other.pred_boxes.tensor, atol=0.01):
        return None, "detectron2's classes find something else with these weights"
    return plain, ""


def _not_plain(heads: BalancedROIHeads) -> str:
    """What of these heads detectron2's have not, at inference; empty where there is nothing."""
    if len(heads.test_branches) > 1:
        return f"{len(heads.test_branches)} parallel branches"
    if type(heads.iou_branch) is not PredictorBoxes:
        return "an IoU branch"
    if type(heads.stages) not in (SingleStage, CascadeStages):
        return f"{heads.stages.num_test} loops"
    if heads.stages.num_test != heads.stages.num_train or heads.stages.merge != "probability":
        return f"{heads.stages.num_test} stages, scores merged by {heads.stages.merge}"
    coder = heads.test_predictor.box2box_transform
    if type(coder) is not Box2BoxTransform:
        return f"the box coder {type(coder).__name__}"
    if type(heads.mask_branch) is not FirstStageMasks or heads.mask_iou_head is not None:
        return "its masks"
    return ""


def _rcnn(model: GeneralizedRCNN) -> GeneralizedRCNN:
    generator = model.proposal_generator
    if isinstance(generator, BalancedRPN):
        generator = generator.__prepare_scriptable__()
    return _of_class(model, GeneralizedRCNN, proposal_generator=generator, roi_heads=_heads(model.roi_heads))


def _heads(heads: BalancedROIHeads) -> nn.Module:
    is_cascade = isinstance(heads.stages, CascadeStages)
    branch = heads.branches[heads.test_branches[0]]
    predictors = [_of_class(branch.predictor(k), FastRCNNOutputLayers, cls_loss=None, box_loss=None)
                  for k in range(branch.num_heads or 1)]  # fmt: skip
    pooler, mask_pooler = _pooler(heads.box_pooler), _pooler(getattr(heads, "mask_pooler", None))
    parts = {"box_head": branch.box_head, "box_predictor": nn.ModuleList(predictors) if is_cascade else predictors[0]}
    plain = _of_class(heads, CascadeROIHeads if is_cascade else StandardROIHeads, box_pooler=pooler, **parts)
    if mask_pooler is not None:
        plain.mask_pooler = mask_pooler
    for name in [name for name in plain._modules if "_branch" in name or name == "later_matchers"]:
        del plain._modules[name]
    plain.num_cascade_stages = len(predictors)
    return plain.eval()


def _pooler(pooler):
    return _of_class(pooler, ROIPooler) if type(pooler) is SortedROIPooler else pooler


def _of_class(module: nn.Module, kind: type, **parts) -> nn.Module:
    """A copy of the module that is of detectron2's class ``kind``, with the same parts but for the given ones."""
    plain = copy.copy(module)
    plain.__class__ = kind
    plain._modules = OrderedDict((name, parts.pop(name, part)) for name, part in module._modules.items())
    for name, part in parts.items():
        setattr(plain, name, part)
    return plain


def _is_ours(part: nn.Module) -> bool:
    kind = type(part)
    # Matchers, samplers and losses do nothing at inference.
    is_layer = next(part.parameters(), None) is not None or isinstance(part, ROIPooler)
    return is_layer and (kind.__module__.startswith("d2_balanced.") or hasattr(kind, "computes_in"))
