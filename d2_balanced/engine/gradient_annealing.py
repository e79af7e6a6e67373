"""R-CNN gradient annealing (RGA + PRM, sec. 3.1 and appendix B)."""

import functools
import math
import re
import types

import torch
from detectron2.engine import HookBase

from ..modeling.awaited_hook import hook_at_work
from ..utils.errors import ConfigError, Refusal

__all__ = ["GradientAnnealing", "annealing_factor", "annealing_hooks"]

PARAMETER_GROUPS = {
    "box": r"roi_heads\.(box_pooler|box_head|box_predictor|iou_branch)",
    "box_and_mask": r"roi_heads\.(box_pooler|box_head|box_predictor|iou_branch|mask_pooler|mask_head|mask_iou_head)",
}


def annealing_factor(initial, iteration, total):
    """lambda_t = lambda_0 - (lambda_0 - 1) t / T: from ``initial`` at iteration 0 down to 1 at iteration ``total``."""
    return initial - (initial - 1.0) * iteration / total


class GradientAnnealing(HookBase):
    """Multiplies the gradients of the R-CNN box modules by a factor that falls linearly to 1 during training.

    It does so when ``trainer.optimizer.step`` is called, in any trainer of detectron2's kind: the gradients of all
    micro-batches and processes are there and unscaled, and detectron2's clipping, which is part of the step, weight
    decay and momentum are still to come, and therefore are not scaled themselves. (Clipping outside the optimizer
    comes before.) A step that a gradient scaler skips is not scaled. Gradients of the backbone, the pyramid and the RPN
    are not touched. There is no state: the factor follows from the iteration.

    Args:
        model: the detector; wrapped in ``DistributedDataParallel`` or not. ``None``: the trainer's, from its start on.
        initial: lambda_0, the factor at iteration 0, at least 1 (1: nothing happens). The paper's choice is 7.
        annealed: let the factor fall to 1; otherwise it stays at ``initial`` (the constant variant of table 4).
        total: iterations until the factor is 1; ``None``: the whole training.
        parameters: whose gradients are multiplied. "box": the box head(s), predictor(s) and an IoU branch's;
            "box_and_mask": those of the mask head, too; or a regular expression, searched in the parameters' names.

    Raises ``ValueError`` for ``initial`` below 1 or not finite, ``total`` below 1, ``parameters`` that are no regular
    expression, or that match nothing in the model.
    """

    def __init__(self, model=None, *, initial=7.0, annealed=True, total=None, parameters="box"):
        if not 1.0 <= initial < math.inf:
            raise ValueError(f"GradientAnnealing: initial (lambda_0) must be at least 1 and finite, got {initial}")
        if total is not None and (isinstance(total, bool) or not isinstance(total, int) or total < 1):
            raise ValueError(f"GradientAnnealing: total must be a whole number of iterations from 1, got {total!r}")
        try:
            self._pattern = re.compile(PARAMETER_GROUPS.get(parameters, parameters))
        except (re.error, TypeError) as error:
            raise ValueError(
                f"GradientAnnealing: parameters must be one of {sorted(PARAMETER_GROUPS)} or a regular expression, got "
                f"{parameters!r}: {error}"
            ) from None
        self._group = parameters
        self.initial = float(initial)
        self.annealed = bool(annealed)
        self.total = total
        self.parameters = None if model is None else self._find_parameters(model)
        self._undo = []

    def _find_parameters(self, model):
        model = getattr(model, "module", model)
        name = type(model).__name__
        found = {n: p for n, p in model.named_parameters() if p.requires_grad and self._pattern.search(n)}
        if self._group == "box_and_mask" and found and not any(".mask_" in n for n in found):
            raise Refusal("parameters='box_and_mask'", name, "it has no mask head (MODEL.MASK_ON)", "take 'box'")
        if not found:
            reason, remedy = "no trainable parameter matches", "R-CNN gradient annealing needs a two-stage detector"
            raise Refusal(f"parameters={self._pattern.pattern!r}", name, reason, remedy)
        return list(found.values())

    def before_train(self):
        if self.parameters is None:
            self.parameters = self._find_parameters(self.trainer.model)
        self._wrap_step(self.trainer.optimizer)
        hook_at_work(self.trainer.model, "GradientAnnealing")

    def after_train(self):
        hook_at_work(self.trainer.model, "GradientAnnealing", False)
        while self._undo:
            self._undo.pop()()

    def _wrap_step(self, optimizer):
        """Let ``optimizer.step`` scale first, until training ends.

        Not by torch's ``register_step_pre_hook``: it is called twice a step where detectron2 clips, whose optimizer
        calls the ``step`` of its base class.
        """
        step, own = optimizer.step, vars(optimizer).get("step")  # learning-rate schedulers put one there, too

        @functools.wraps(step)
        def scale_and_step(_, *args, **kwargs):
            self.scale_gradients()
            return step(*args, **kwargs)

        optimizer.step = types.MethodType(scale_and_step, optimizer)  # schedulers that come later want a method
        if own is None:
            self._undo.append(lambda: vars(optimizer).pop("step"))
        else:
            self._undo.append(lambda: setattr(optimizer, "step", own))

    def factor(self):
        """The factor of the current iteration."""
        if not self.annealed:
            return self.initial
        total = self.total or self.trainer.max_iter
        return annealing_factor(self.initial, min(self.trainer.iter, total), total)

    def scale_gradients(self):
        """Multiply the gradients that are there by the factor of this iteration, and log it."""
        factor = self.factor()
        self.trainer.storage.put_scalar("gradient_annealing/factor", factor, smoothing_hint=False)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if factor != 1.0 and gradients:
            torch._foreach_mul_(gradients, factor)


def annealing_hooks(settings, key, model=None):
    """The hooks for a config's settings of :class:`GradientAnnealing`: none if ``initial`` is 1, else one.

    Args:
        settings: its arguments, ``initial`` among them.
        key: the config key of the settings, for error messages.
        model: the detector; without it the settings are checked as far as they can be.

    Raises ``ConfigError`` with the key for what the hook refuses, and for settings that ``initial`` 1 makes useless.
    """
    settings = dict(settings)
    try:
        if settings["initial"] != 1.0:
            return [GradientAnnealing(model, **settings)]
    except Refusal as error:
        raise Refusal(f"{key}: {error.one}", *error.args[1:]) from error
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from error
    useless = sorted(set(settings) - {"initial"})
    if useless:
        raise ConfigError(
            f"{key}: {', '.join(useless)} is set, but initial is 1, which means no annealing; set it (paper: 7)"
        )
    return []
