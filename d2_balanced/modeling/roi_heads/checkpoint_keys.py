"""A checkpoint of a detector with one box head, or one mask head, initialises all of them."""

import logging

from torch import nn

__all__ = ["fill_missing_branches", "spread_mask_head"]


def fill_missing_branches(heads, state_dict, prefix):
    """Copy branch 0's entries of ``state_dict``, in place, to the branches that it has no entries for.

    Args:
        heads: the ``BalancedROIHeads`` that is being loaded.
        state_dict: the (local) state dict; keys below ``prefix`` are the heads'.

    Entries are copied where the shapes fit. Says in the log which branches were filled.
    """
    own = heads.state_dict(keep_vars=True)
    filled = set()
    for p in range(1, len(heads.branches)):
        for kind in ("box_head", "box_predictor"):
            for key in [k for k in own if k.startswith(f"{kind}_branch{p}.")]:
                source = state_dict.get(prefix + kind + key[len(f"{kind}_branch{p}") :])
                if prefix + key not in state_dict and source is not None and source.shape == own[key].shape:
                    state_dict[prefix + key] = source
                    filled.add(p)
    if filled:
        logging.getLogger(__name__).info("Branches %s were initialised from branch 0 of the checkpoint.", sorted(filled))


def spread_mask_head(heads, state_dict, prefix):
    """Where every stage has a mask head, give each the entries of the checkpoint's only one, in place.

    For the arguments see :func:`fill_missing_branches`. What the checkpoint's head lacks (the convolution for the
    features of the stage before) keeps its initial values.
    """
    if not (heads.mask_on and isinstance(heads.mask_head, nn.ModuleList)):
        return
    used = set()
    for key, value in heads.mask_head.state_dict(keep_vars=True).items():
        of_one_head = f"{prefix}mask_head.{key.split('.', 1)[1]}"
        source = state_dict.get(of_one_head)
        if source is not None and source.shape == value.shape:
            state_dict[f"{prefix}mask_head.{key}"] = source
            used.add(of_one_head)
    for key in used:
        del state_dict[key]
    if used:
        logging.getLogger(__name__).info("All mask heads were initialised from the checkpoint's only one.")
