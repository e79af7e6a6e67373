"""yacs builders of the pyramids: the names that ``MODEL.BACKBONE.NAME`` takes.

``MODEL.FPN.*`` and ``MODEL.RESNETS.*`` are detectron2's. ``MODEL.BALANCED.FPN`` holds the arguments of
:class:`BalancedFPN` (REFINE_LEVEL, REFINEMENT), ``MODEL.BALANCED.PAFPN`` those of :class:`PAFPN` (FORM),
``MODEL.BALANCED.CONTEXT`` those of :func:`add_context_blocks` (STAGES, RATIO).
"""

from __future__ import annotations

from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import BACKBONE_REGISTRY, FPN, build_resnet_backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7

from d2_balanced.utils.constructing import constructing

from ..balanced_keys import balanced_keys
from .balanced_fpn import BalancedFPN, BalancedPAFPN
from .context_block import add_context_blocks
from .pafpn import PAFPN

__all__ = []

_SECTIONS = {"modeling/backbone/fpn.py": "MODEL.FPN"}


def _register(*nodes: str):
    """Register a builder as a backbone that reads the nodes ``MODEL.BALANCED.<node>``, which the config check asks."""

    def register(builder):
        builder.reads = tuple(f"MODEL.BALANCED.{node}" for node in nodes)
        BACKBONE_REGISTRY.register(builder)
        return builder

    return register


def _settings(cfg, *nodes: str):
    """``{MODEL.BALANCED.<node>.<NAME>: value}`` of nodes that a config may lack."""
    balanced = balanced_keys(cfg)
    return {f"MODEL.BALANCED.{n}.{name}": value for n in nodes for name, value in getattr(balanced, n, {}).items()}


def _construct(key: str, settings, make, *args, **kwargs):
    """``make(...)`` with the arguments in ``settings``, lower-cased; what it refuses names their key, or else ``key``."""
    with constructing(key, settings, _SECTIONS):
        return make(*args, **kwargs, **{name.rsplit(".", 1)[-1].lower(): value for name, value in settings.items()})


def _bottom_up(cfg, input_shape: ShapeSpec, with_context: bool):
    resnet = build_resnet_backbone(cfg, input_shape)
    context = _settings(cfg, "CONTEXT")
    if not (with_context or context):
        return resnet
    return _construct("MODEL.BALANCED.CONTEXT", context, add_context_blocks, resnet)


def _pyramid(pyramid_class, cfg, input_shape: ShapeSpec, retinanet: bool = False, with_context: bool = False, top="res5"):
    """``pyramid_class`` over a ResNet: P2..P6 for two-stage detectors, P3..P7 for RetinaNet, as detectron2 builds FPN.

    P6 is computed from ``top``: RetinaNet's from the last stage, FCOS's from P5. The ResNet has context blocks if asked for, or if any setting of theirs is in the config.
    """
    bottom_up = _bottom_up(cfg, input_shape, with_context)
    channels = cfg.MODEL.FPN.OUT_CHANNELS
    if retinanet:
        below = channels if top == "p5" else bottom_up.output_shape()[top].channels
        top_block = LastLevelP6P7(below, channels, in_feature=top)
    else:
        top_block = LastLevelMaxPool()
    nodes = [name for name, of in (("FPN", BalancedFPN), ("PAFPN", PAFPN)) if issubclass(pyramid_class, of)]
    return _construct(
        f"MODEL.BALANCED.{(nodes or ['FPN'])[0]}",
        _settings(cfg, *nodes),
        pyramid_class,
        bottom_up=bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=channels,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top_block,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


@_register("CONTEXT")
def build_resnet_context_fpn_backbone(cfg, input_shape: ShapeSpec):
    """FPN on a ResNet with the global context blocks of ``MODEL.BALANCED.CONTEXT``."""
    return _pyramid(FPN, cfg, input_shape, with_context=True)


@_register("FPN", "CONTEXT")
def build_resnet_balanced_fpn_backbone(cfg, input_shape: ShapeSpec):
    """:class:`BalancedFPN` on a ResNet, P2..P6."""
    return _pyramid(BalancedFPN, cfg, input_shape)


@_register("PAFPN", "CONTEXT")
def build_resnet_pafpn_backbone(cfg, input_shape: ShapeSpec):
    """:class:`PAFPN` on a ResNet, P2..P6."""
    return _pyramid(PAFPN, cfg, input_shape)


@_register("FPN", "PAFPN", "CONTEXT")
def build_resnet_balanced_pafpn_backbone(cfg, input_shape: ShapeSpec):
    """:class:`BalancedPAFPN` on a ResNet, P2..P6."""
    return _pyramid(BalancedPAFPN, cfg, input_shape)


@_register("CONTEXT")
def build_retinanet_resnet_context_fpn_backbone(cfg, input_shape: ShapeSpec):
    """FPN on a ResNet with the global context blocks of ``MODEL.BALANCED.CONTEXT``, P3..P7."""
    return _pyramid(FPN, cfg, input_shape, retinanet=True, with_context=True)


@_register("CONTEXT")
def build_fcos_resnet_fpn_backbone(cfg, input_shape: ShapeSpec):
    """FPN on a ResNet, P3..P7, with P6 and P7 from P5: FCOS's."""
    return _pyramid(FPN, cfg, input_shape, retinanet=True, top="p5")


@_register("FPN", "CONTEXT")
def build_retinanet_resnet_balanced_fpn_backbone(cfg, input_shape: ShapeSpec):
    """:class:`BalancedFPN` on a ResNet, P3..P7 (the paper's P4 is then level 1)."""
    return _pyramid(BalancedFPN, cfg, input_shape, retinanet=True)


@_register("PAFPN", "CONTEXT")
def build_retinanet_resnet_pafpn_backbone(cfg, input_shape: ShapeSpec):
    """:class:`PAFPN` on a ResNet, P3..P7."""
    return _pyramid(PAFPN, cfg, input_shape, retinanet=True)


@_register("FPN", "PAFPN", "CONTEXT")
def build_retinanet_resnet_balanced_pafpn_backbone(cfg, input_shape: ShapeSpec):
    """:class:`BalancedPAFPN` on a ResNet, P3..P7."""
    return _pyramid(BalancedPAFPN, cfg, input_shape, retinanet=True)
