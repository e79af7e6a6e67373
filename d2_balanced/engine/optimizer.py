"""SGD that clips gradients, for LazyConfig (in yacs detectron2's SOLVER.CLIP_GRADIENTS makes the same one)."""

import torch
from detectron2.config import CfgNode
from detectron2.solver.build import maybe_add_gradient_clipping

__all__ = ["clipped_sgd"]


def clipped_sgd(params, *, lr, clip_type="norm", clip_value=1.0, norm_type=2.0, **kwargs):
    """``torch.optim.SGD`` whose ``step`` first clips the gradient of each parameter, as detectron2's clipping does.

    Args:
        params, lr, kwargs: as in ``torch.optim.SGD``.
        clip_type: "norm" clips each parameter's gradient to the norm ``clip_value``, "value" each of its elements.
        clip_value: the bound, above 0.
        norm_type: which p-norm; only for "norm".

    Raises ``ValueError`` for another ``clip_type`` or a bound out of range.
    """
    if clip_type not in ("norm", "value"):
        raise ValueError(f"clipped_sgd: clip_type must be 'norm' or 'value', got {clip_type!r}")
    if not clip_value > 0:
        raise ValueError(f"clipped_sgd: clip_value must be above 0, got {clip_value!r}")
    settings = {"ENABLED": True, "CLIP_TYPE": clip_type, "CLIP_VALUE": clip_value, "NORM_TYPE": norm_type}
    cfg = CfgNode({"SOLVER": {"CLIP_GRADIENTS": settings}})
    return maybe_add_gradient_clipping(cfg, torch.optim.SGD)(params, lr=lr, **kwargs)
