"""How many parameters the models of configs have, by part:

    python -m d2_balanced.analysis.parameters configs/coco/mask_rcnn_R_50_FPN_1x.yaml projects/R3CNN/configs/*_1x.py

Models are built without values, so nothing is read and hardly any memory is needed.
"""


import torch
from tabulate import tabulate

from ..arguments.parameters import argument_parser
from ..engine.open import open_experiment
from ..utils.command import command

__all__ = ["count_parameters", "main", "model_without_values"]

_ROI_HEADS = "roi_heads"


def model_without_values(experiment):
    """The experiment's model on the device "meta", to which the experiment is set."""
    experiment.set_run(device="meta")
    with torch.device("meta"):
        return experiment.build_model()


def count_parameters(model):
    """``{part: number of trainable parameters}``, with entries ``all`` and ``frozen`` (those that do not train).

    Each module of the ROI heads is a part of its own. A parameter that parts share counts once, in the first."""
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
    arguments = argument_parser().parse_args(args)
    counts = {path: count_parameters(model_without_values(open_experiment(path))) for path in arguments.configs}
    parts = list(dict.fromkeys(part for count in counts.values() for part in count))
    rows = [[path, *(count.get(part, 0) for part in parts)] for path, count in counts.items()]
    print("Trainable parameters")
    print(tabulate(rows, headers=["config", *parts], intfmt=","))
    return counts


if __name__ == "__main__":
    main()
