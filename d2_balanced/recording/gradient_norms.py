"""Norms of each head's gradient at one parameter of the backbone, and of their sum (RGA + PRM, fig. 5)."""

from __future__ import annotations

import re
from typing import Dict

import torch

from ..utils.errors import did_you_mean

__all__ = ["GradientNorms", "group_of"]


def group_of(loss_name: str) -> str:
    """The head that a loss belongs to: "branch 0", .., "mask", "keypoint", "rpn", or "box" if there is only one branch."""
    branch = re.search(r"_branch(\d+)$", loss_name)
    if branch:
        return f"branch {branch.group(1)}"
    return next((group for group in ("rpn", "mask", "keypoint") if f"loss_{group}" in loss_name), "box")


class GradientNorms:
    """Measures, when ``wanted`` is set, the next training forward pass: norms of the gradients of each group of losses.

    The losses' own graph is used (``torch.autograd.grad``), so the training step after it is the same to the last bit.
    It takes as long as one backward pass for every group: measure every hundredth step or so. The norms are of this
    process's images, of the first of the step's forward passes, before gradient annealing and clipping.

    Args:
        model: a detector that returns a dict of losses in training.
        parameter: full name of the parameter.

    Raises ``ValueError`` if the model has no such trainable parameter.
    """

    def __init__(self, model, parameter: str):
        trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if parameter not in trainable:
            raise ValueError(
                f"GradientNorms: gradient_parameter must be the name of a trainable parameter of the model, got "
                f"{parameter!r}.{did_you_mean(parameter, trainable)}"
            )
        self.wanted = False
        self.found: Dict[str, torch.Tensor] = {}
        self._parameter = trainable[parameter]
        self._model = model
        self._handle = None

    def attach(self) -> None:
        """Take part in the model's forward passes, until ``remove()``."""
        self._handle = self._model.register_forward_hook(self._measure)

    def take(self) -> Dict[str, float]:
        """The norms by group, and "sum": that of the sum over all groups but the RPN. They are forgotten here."""
        norms = {name: float(norm) for name, norm in self.found.items()}
        self.found = {}
        return norms

    def remove(self) -> None:
        """Leave the model as it was."""
        if self._handle is not None:
            self._handle.remove()

    def _measure(self, model, inputs, losses):
        if not (self.wanted and model.training and isinstance(losses, dict)):
            return
        self.wanted = False
        groups: Dict[str, torch.Tensor] = {}
        for name, loss in losses.items():
            groups[group_of(name)] = groups.get(group_of(name), 0) + loss
        gradients = {group: self._gradient(loss) for group, loss in groups.items()}
        self.found = {group: gradient.norm() for group, gradient in gradients.items()}
        heads = [gradient for group, gradient in gradients.items() if group != "rpn"]
        self.found["sum"] = sum(heads, torch.zeros_like(self._parameter)).norm()

    def _gradient(self, loss):
        gradient = None
        if loss.requires_grad:
            (gradient,) = torch.autograd.grad(loss, self._parameter, retain_graph=True, allow_unused=True)
        return torch.zeros_like(self._parameter) if gradient is None else gradient.detach()
