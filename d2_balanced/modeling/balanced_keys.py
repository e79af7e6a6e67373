"""This project's node in a yacs config, or what to call where a script of one's own has not added it."""

from ..utils.errors import ConfigError

__all__ = ["balanced_keys"]


def balanced_keys(cfg):
    """``cfg.MODEL.BALANCED``; ``ConfigError`` for a config without the keys of d2_balanced."""
    if "BALANCED" not in cfg.MODEL:
        raise ConfigError(
            "MODEL.BALANCED: this config has no keys of d2_balanced. Call d2_balanced.add_balanced_config(cfg) after "
            "detectron2's get_cfg(), before a file is merged into it (docs/LIBRARY.md)."
        )
    return cfg.MODEL.BALANCED
