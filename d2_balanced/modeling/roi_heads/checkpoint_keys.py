"""A checkpoint of a single-branch detector initialises every parallel branch."""

import logging

__all__ = ["fill_missing_branches"]


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
