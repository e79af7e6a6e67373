"""Configuration: this project's yacs keys, strict loading of yacs and LazyConfig files, components from spec nodes."""

from ..utils.errors import ConfigError
from .check_yacs import changed_settings, check_config, describe_changes
from .defaults import add_balanced_config, get_balanced_cfg
from .lazy import apply_overrides, check_lazy, load_lazy
from .lazy_defaults import data_defaults, train_defaults
from .yacs import load_yaml, merge_overrides

__all__ = [
    "ConfigError",
    "add_balanced_config",
    "apply_overrides",
    "changed_settings",
    "check_config",
    "check_lazy",
    "data_defaults",
    "describe_changes",
    "get_balanced_cfg",
    "load_lazy",
    "load_yaml",
    "merge_overrides",
    "train_defaults",
]
