"""An optimizer that clips gradients, for LazyConfig (in yacs detectron2's SOLVER.CLIP_GRADIENTS makes the same one)."""

from detectron2.config import CfgNode
from detectron2.solver.build import maybe_add_gradient_clipping

__all__ = ["clipped"]


def clipped(optimizer, *, clip_type="norm", clip_value=1.0, norm_type=2.0, **kwargs):
    """``optimizer(**kwargs)`` of a class whose ``step`` first clips the gradient of each parameter, as detectron2 does.

    Args:
        optimizer: a class of ``torch.optim``.
        clip_type: "norm" clips each parameter's gradient to the norm ``clip_value``, "value" each of its elements.
        clip_value: the bound, above 0.
        norm_type: which p-norm; only for "norm".
        kwargs: the optimizer's own arguments, ``params`` among them.

    Raises ``ValueError`` for another ``clip_type`` or a bound out of range.
    """
    if clip_type not in ("norm", "value"):
        raise ValueError(f"clipped: clip_type must be 'norm' or 'value', got {clip_type!r}")
    if not clip_value > 0:
        raise ValueError(f"clipped: clip_value must be above 0, got {clip_value!r}")
    settings = {"ENABLED": True, "CLIP_TYPE": clip_type, "CLIP_VALUE": clip_value, "NORM_TYPE": norm_type}
    cfg = CfgNode({"SOLVER": {"CLIP_GRADIENTS": settings}})
    return maybe_add_gradient_clipping(cfg, optimizer)(**kwargs)
