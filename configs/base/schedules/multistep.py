"""detectron2's step schedule with warm-up, as a LazyConfig node."""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler


def multistep(max_iter, steps, warmup_iters=1000):
    """The learning rate's multiplier: 1, and a tenth of it after each of ``steps`` (iterations)."""
    return L(WarmupParamScheduler)(
        scheduler=L(MultiStepParamScheduler)(
            values=[0.1**k for k in range(len(steps) + 1)], milestones=list(steps), num_updates=max_iter
        ),
        warmup_factor=1.0 / 1000,
        warmup_length=warmup_iters / max_iter,
        warmup_method="linear",
    )
