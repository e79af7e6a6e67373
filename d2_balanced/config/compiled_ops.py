"""Rotated boxes in a config for a detectron2 that was installed without its compiled operators."""

from __future__ import annotations

from detectron2.config import CfgNode
from omegaconf import DictConfig, OmegaConf

from d2_balanced import compat

from ..utils.errors import ConfigError
from .lazy_targets import walk

__all__ = ["check_compiled_ops", "check_compiled_ops_lazy"]

_YACS_KEYS = (
    "PROPOSAL_GENERATOR.NAME",
    "ROI_HEADS.NAME",
    "ROI_BOX_HEAD.POOLER_TYPE",
    "ROI_MASK_HEAD.POOLER_TYPE",
    "ROI_KEYPOINT_HEAD.POOLER_TYPE",
)
_NEED_COMPILING = ("RRPN", "RROIHeads", "ROIAlignRotated", "RotatedFastRCNNOutputLayers")


def check_compiled_ops(cfg: CfgNode) -> None:
    """Raise ``ConfigError`` if a yacs config wants rotated boxes and there are no compiled operators."""
    for key in _YACS_KEYS:
        node, name = key.split(".")
        if cfg.MODEL[node][name] in _NEED_COMPILING:
            _require(f"MODEL.{key}", cfg.MODEL[node][name])


def check_compiled_ops_lazy(cfg: DictConfig, where: str = "") -> None:
    """The same for a LazyConfig: no node may be, or be given, a class that needs the operators."""
    for key, node in walk(cfg):
        for name in node.keys():
            value = None if OmegaConf.is_interpolation(node, name) else node[name]
            found = getattr(value, "__name__", value if isinstance(value, str) else "").rsplit(".", 1)[-1]
            if found in _NEED_COMPILING:
                _require(f"{key}.{name}{where}", found)


def _require(key: str, value) -> None:
    if not compat.has_compiled_ops():
        raise ConfigError(
            f"{key}: {value} is for rotated boxes, but this detectron2 was installed without its compiled operators. "
            "Install the official detectron2, built from source with a C++ compiler and, for a GPU, CUDA "
            "(its INSTALL.md), or take a detector without rotated boxes."
        )
