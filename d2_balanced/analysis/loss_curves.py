"""Box losses and their gradients as curves over the error of a delta (Dynamic R-CNN, figure 4; Libra R-CNN, figure 5):

    python -m d2_balanced.analysis.loss_curves --output loss_curves.png                # SmoothL1 with several betas
    python -m d2_balanced.analysis.loss_curves Libra=LibraRCNN/libra_quick L1=quick/faster_rcnn_R_18_FPN
    python -m d2_balanced.analysis.loss_curves output/dynamic --output curves.png      # a run: the betas that it had

Of a config the box loss of the first stage, of a run's folder the same; where its beta adapts, at the start and after
each quarter of training.
"""

from __future__ import annotations

import os

import numpy as np
import torch

from ..arguments.loss_curves import argument_parser
from ..engine.open import open_experiment, open_run
from ..modeling.box_losses import DynamicSmoothL1, SmoothL1
from ..utils.command import command
from ..utils.errors import ConfigError
from ..utils.json_lines import read_metrics
from .panels import curve_figure

__all__ = ["curve_of", "losses_of", "main"]

_BETAS = (2.0, 1.0, 0.5, 0.25, 0.1)
_LARGEST = 2.0
_BETA = "dynamic_smooth_l1/beta"


def curve_of(loss, errors):
    """Loss and gradient (n,), (n,) of a box loss at the errors (n,) of one delta.

    Raises ``ConfigError`` for a loss that sees more than deltas.
    """
    sees = getattr(loss, "sees", "deltas")
    wants = [name for name in ("wants_ious", "wants_log_variances") if getattr(loss, name, False)]
    if sees != "deltas" or wants:
        raise ConfigError(
            f"loss_curves: {type(loss).__name__} is no function of the error of one delta: it sees {sees}"
            + (f" and {' and '.join(name[len('wants_') :] for name in wants)}." if wants else ".")
        )
    pred = torch.as_tensor(errors, dtype=torch.float32)[:, None].repeat(1, 4).requires_grad_()
    values = loss(pred, torch.zeros_like(pred))
    (gradient,) = torch.autograd.grad(values.sum(), pred)
    values = values[:, 0] if values.dim() == 2 else values
    return values.detach().numpy(), gradient[:, 0].numpy()


def losses_of(source):
    """``{label: box loss}`` of a config or the folder of a run; several where the beta of its loss adapts.

    Raises ``ConfigError`` for a detector without a box loss.
    """
    experiment = open_run(source) if os.path.isdir(source) else open_experiment(source)
    experiment.set_run(device="cpu")
    model = experiment.build_model()
    loss = _box_loss(model)
    if not isinstance(loss, DynamicSmoothL1):
        return {"": loss}
    path = next(path for path, module in model.named_modules() if module is loss)
    return {label: SmoothL1(beta=beta) for label, beta in _betas_of(source, loss, path).items()}


def _betas_of(source, loss, path):
    """``path``: the loss's in the model, by which the log names its beta where a stage or branch has another one."""
    lines = read_metrics(os.path.join(source, "metrics.json")) if os.path.isdir(source) else []
    names = (_BETA, f"{path}/{os.path.basename(_BETA)}")
    found = [(line["iteration"], line[name]) for line in lines for name in names if name in line]
    betas = {f"beta {loss.initial_beta:g} at the start": loss.initial_beta}
    for quarter in range(1, 5):
        if found:
            iteration, beta = found[max(round(quarter * len(found) / 4), 1) - 1]
            betas[f"beta {beta:.3g} at iteration {iteration}"] = max(beta, 1e-6)
    return betas


def _box_loss(model):
    """The box loss of a detector's first stage."""
    heads = getattr(model, "roi_heads", None)
    if getattr(getattr(heads, "iou_branch", None), "replaces_regressor", False):
        return SmoothL1(beta=1.0)  # IoU-Uniform's: iou_losses.py
    branches = getattr(heads, "branches", None)
    owner = branches[heads.main_branch].predictor(0) if branches else getattr(heads, "box_predictor", model)
    loss = getattr(owner, "box_loss", None)
    beta = getattr(owner, "smooth_l1_beta", None)
    if loss is None and (beta is None or getattr(owner, "box_reg_loss_type", "smooth_l1") != "smooth_l1"):
        raise ConfigError("loss_curves: this detector has no box loss of the deltas' errors.")
    return SmoothL1(beta=beta) if loss is None else loss


def _figure(losses):
    errors = np.linspace(0.0, _LARGEST, 401)[1:]
    found = {label: curve_of(loss, errors) for label, loss in losses.items()}
    values = {label: (errors, curve) for label, (curve, _) in found.items()}
    gradients = {label: (errors, curve) for label, (_, curve) in found.items()}
    panels = [("loss", "error of a delta", "loss", values), ("gradient", "error of a delta", "gradient", gradients)]
    return curve_figure("Box losses", panels)


@command("python -m d2_balanced.analysis.loss_curves")
def main(argv=None):
    """The commands at the top of this module; returns the labels of the curves."""
    args = argument_parser().parse_args(argv)
    losses = {f"SmoothL1, beta {beta:g}": SmoothL1(beta=beta) for beta in _BETAS} if not args.sources else {}
    for word in args.sources:
        name, equals, source = word.partition("=")
        source = source if equals and not os.path.exists(word) else word
        name = name if source != word else os.path.basename(os.path.normpath(word))
        losses.update({", ".join(filter(None, (name, label))): loss for label, loss in losses_of(source).items()})
    os.makedirs(os.path.dirname(args.output) or ".", exist_ok=True)
    _figure(losses).savefig(args.output, dpi=110)
    print(args.output)
    return list(losses)


if __name__ == "__main__":
    main()
