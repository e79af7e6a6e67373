"""A LazyConfig whose mapper keeps ignore regions needs modules that read them (yacs: ``INPUT.IGNORE_REGIONS``)."""

from ..data.mapper import IgnoreRegionMapper
from ..modeling.proposal_generator import BalancedRPN
from ..modeling.roi_heads import BalancedROIHeads
from ..utils.errors import ConfigError
from .lazy_targets import find_target

__all__ = ["check_lazy_regions"]


def check_lazy_regions(cfg) -> None:
    """Raise ``ConfigError`` if ``dataloader.train.mapper`` keeps regions that a module of ``model`` would ignore."""
    mapper = cfg.dataloader.train.get("mapper") or {}
    if not _derives(mapper, "dataloader.train.mapper", IgnoreRegionMapper):
        return
    readers = {"proposal_generator": BalancedRPN, "roi_heads": BalancedROIHeads}
    modules = {name: cfg.model.get(name) for name in readers}
    ignoring = [name for name, node in modules.items() if node and not _derives(node, f"model.{name}", readers[name])]
    if ignoring or not any(modules.values()):
        who = f"model.{ignoring[0]}" if ignoring else "model"
        raise ConfigError(
            f"dataloader.train.mapper is an IgnoreRegionMapper, but {who} would ignore the regions; it needs "
            "model.proposal_generator._target_=BalancedRPN and model.roi_heads._target_=BalancedROIHeads."
        )


def _derives(node, key, base) -> bool:
    target = find_target(node._target_, key) if "_target_" in node else None
    return isinstance(target, type) and issubclass(target, base)
