"""How many parameters the models of configs have, by part:

    python -m d2_balanced.analysis.parameters configs/coco/mask_rcnn_R_50_FPN_1x.yaml projects/R3CNN/configs/*_1x.py

Models are built without values, so nothing is read and hardly any memory is needed.
"""

import argparse

import torch
from detectron2.config import instantiate
from detectron2.modeling import build_model
from tabulate import tabulate

from ..config import check_config, load_lazy, load_yaml
from ..utils.command import command
from ..utils.errors import ConfigError

__all__ = ["count_parameters", "main", "model_without_values"]

_ROI_HEADS = "roi_heads"


def model_without_values(path, opts=()):
    """The model of a yaml or LazyConfig file on the device "meta". Raises ``ConfigError`` for a config that is refused.

    Args:
        path: the config file.
        opts: overrides of a yaml config, as on the command line of ``train_net.py``.
    """
    if path.endswith(".py"):
        if opts:
            raise ConfigError(f"{path}: overrides are for yaml configs, got {list(opts)}")
        with torch.device("meta"):
            return instantiate(load_lazy(path).model)
    cfg = load_yaml(path, list(opts))
    check_config(cfg)
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        return build_model(cfg)


def count_parameters(model):
    """``{part: trainable parameters}`` of the model's parts (those of the ROI heads one by one), and of ``all``;
    ``frozen`` has the rest. Parameters that several parts share count once, where they come first."""
    counts = {}
    for name, parameter in model.named_parameters():
        parts = name.split(".")
        part = "frozen" if not parameter.requires_grad else parts[1] if parts[0] == _ROI_HEADS else parts[0]
        counts[part] = counts.get(part, 0) + parameter.numel()
    frozen = counts.pop("frozen", 0)
    return {"all": sum(counts.values()), "frozen": frozen, **counts}


@command("python -m d2_balanced.analysis.parameters")
def main(args=None):
    """The command line; returns ``{config: counts}``."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("configs", nargs="+", metavar="CONFIG", help=".yaml (yacs) or .py (LazyConfig)")
    arguments = parser.parse_args(args)
    counts = {path: count_parameters(model_without_values(path)) for path in arguments.configs}
    parts = list(dict.fromkeys(part for count in counts.values() for part in count))
    rows = [[path, *(count.get(part, 0) for part in parts)] for path, count in counts.items()]
    print("Trainable parameters")
    print(tabulate(rows, headers=["config", *parts], intfmt=","))
    return counts


if __name__ == "__main__":
    main()
