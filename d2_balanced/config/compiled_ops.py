"""Deformable convolutions in a config for a detectron2 that was installed without its compiled operators."""

from __future__ import annotations

from detectron2.config import CfgNode
from omegaconf import DictConfig, OmegaConf

from d2_balanced import compat

from ..utils.errors import ConfigError
from .lazy_targets import walk

__all__ = ["check_compiled_ops", "check_compiled_ops_lazy"]

_YACS_KEY = "MODEL.RESNETS.DEFORM_ON_PER_STAGE"
_NEED_COMPILING = ("DeformBottleneckBlock", "DeformConv", "ModulatedDeformConv")


def check_compiled_ops(cfg: CfgNode) -> None:
    """Raise ``ConfigError`` if a yacs config wants deformable convolutions and there are no compiled operators."""
    stages = list(cfg.MODEL.RESNETS.DEFORM_ON_PER_STAGE)
    if any(stages):
        _require(_YACS_KEY, stages)


def check_compiled_ops_lazy(cfg: DictConfig, where: str = "") -> None:
    """The same for a LazyConfig: no node may be, or be given, a class that needs the operators."""
    for key, node in walk(cfg):
        for name in node.keys():
            value = None if OmegaConf.is_interpolation(node, name) else node[name]
            found = getattr(value, "__name__", value if isinstance(value, str) else "").rsplit(".", 1)[-1]
            if found in _NEED_COMPILING:
                _require(f"{key}.{name} ({_YACS_KEY} in yaml){where}", found)


def _require(key: str, value) -> None:
    if not compat.has_compiled_ops():
        raise ConfigError(
            f"{key}: {value} asks for deformable convolutions, but this detectron2 was installed without its compiled "
            "operators. Install the official detectron2, built from source with a C++ compiler and, for a GPU, CUDA "
            "(its INSTALL.md), or take a backbone without them."
        )
