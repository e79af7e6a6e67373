"""R-CNN gradient annealing (RGA + PRM, sec. 3.1 and appendix B)."""

import re

import torch
from detectron2.engine import HookBase

__all__ = ["GradientAnnealing", "annealing_factor"]

BOX_MODULES = r"roi_heads\.(box_head|box_predictor|iou_branch)"
BOX_AND_MASK_MODULES = r"roi_heads\.(box_head|box_predictor|iou_branch|mask_head|mask_iou_head)"


def annealing_factor(initial, iteration, total):
    """lambda_t = lambda_0 - (lambda_0 - 1) t / T: from ``initial`` at iteration 0 down to 1 at iteration ``total``."""
    return initial - (initial - 1.0) * iteration / total


class GradientAnnealing(HookBase):
    """Multiplies the gradients of the R-CNN box modules by a factor that falls linearly to 1 during training.

    It does so once per optimizer step, when the gradients of all micro-batches and processes are there and unscaled:
    before clipping, and before weight decay and momentum, which therefore are not scaled themselves. Gradients of the
    backbone, the pyramid and the RPN are not touched. There is no state: the factor follows from the iteration.

    Args:
        model: the detector; wrapped in ``DistributedDataParallel`` or not.
        initial: lambda_0, the factor at iteration 0, at least 1 (1: nothing happens). The paper's choice is 7.
        annealed: let the factor fall to 1; otherwise it stays at ``initial`` (the constant variant of table 4).
        total: iterations until the factor is 1; ``None``: the whole training.
        parameters: regular expression, searched in the names of the model's parameters: the gradients that are
            multiplied. By default those of the box head(s) and predictor(s); ``BOX_AND_MASK_MODULES`` adds the mask head.

    Raises ``ValueError`` for ``initial`` below 1, ``total`` below 1, or if ``parameters`` matches nothing in the model.
    """

    def __init__(self, model, *, initial=7.0, annealed=True, total=None, parameters=BOX_MODULES):
        if not initial >= 1.0:
            raise ValueError(f"GradientAnnealing: initial (lambda_0) must be at least 1, got {initial}")
        if total is not None and total < 1:
            raise ValueError(f"GradientAnnealing: total must be at least 1 iteration, got {total}")
        model = getattr(model, "module", model)
        pattern = re.compile(parameters)
        self.parameters = [p for name, p in model.named_parameters() if p.requires_grad and pattern.search(name)]
        if not self.parameters:
            raise ValueError(
                f"GradientAnnealing: no trainable parameter of {type(model).__name__} matches parameters={parameters!r}; "
                f"R-CNN gradient annealing needs a two-stage detector"
            )
        self.initial = float(initial)
        self.annealed = annealed
        self.total = total

    def factor(self):
        """The factor of the current iteration."""
        if not self.annealed:
            return self.initial
        total = self.total or self.trainer.max_iter
        return annealing_factor(self.initial, min(self.trainer.iter, total), total)

    def after_backward(self):
        factor = self.factor()
        self.trainer.storage.put_scalar("gradient_annealing/factor", factor, smoothing_hint=False)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if factor != 1.0 and gradients:
            torch._foreach_mul_(gradients, factor)
