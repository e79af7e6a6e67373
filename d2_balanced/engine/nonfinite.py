"""What happens when a loss, or what leads to one, becomes infinite or NaN: training stops, and says on which images."""

from __future__ import annotations

import contextlib
import json
import math
import os
from typing import Dict

from detectron2.utils import comm

from ..utils.atomic import atomic_write

__all__ = ["NonFiniteLossError", "nan_is_nonfinite", "require_finite"]


class NonFiniteLossError(FloatingPointError):
    """A loss, or what leads to one, became infinite or NaN; ``details`` (plain Python) says when, and on which images.

    Raised on every process, before the optimizer step, so the weights are still those of the iteration before.
    """

    def __init__(self, details: dict):
        self.details = details
        losses = "\n".join(f"    {name} = {value}" for name, value in details["losses"].items()) or "    (none yet)"
        images = "\n".join(f"    {image}" for image in details["images"]) or "    (none known)"
        super().__init__(
            f"{details['reason'].rstrip('!. ')}: iteration {details['iteration']}, learning rate {details['lr']:.6g}.\n"
            f"  losses (mean over processes):\n{losses}\n"
            f"  images of this process, process {details['process']}:\n{images}\n"
            f"  total loss of the iteration before: {details['last_total_loss']}\n"
            "Weights were not stepped, and no checkpoint is written after this. Usual causes: a learning rate too high "
            "for this batch size (--auto-scale-lr scales it), no warm-up or gradient clipping, wrong boxes in the data."
        )

    def write(self, folder: str) -> None:
        """Write ``details`` to nonfinite_loss.json in ``folder``; each further process has a file of its own."""
        name = "nonfinite_loss.json" if comm.is_main_process() else f"nonfinite_loss.process{comm.get_rank()}.json"
        with atomic_write(os.path.join(folder, name), "w") as file:
            json.dump(self.details, file, indent=2)


def require_finite(losses: Dict[str, float], trainer) -> None:
    """Raise ``NonFiniteLossError`` if a loss of the trainer's step is infinite or NaN."""
    if not all(math.isfinite(value) for value in losses.values()):
        raise NonFiniteLossError(_details(trainer, losses, "Loss became infinite or NaN"))


@contextlib.contextmanager
def nan_is_nonfinite(trainer):
    """Turn detectron2's own errors about NaN, which it finds in boxes before there is a loss, into ours."""
    try:
        yield
    except (FloatingPointError, AssertionError) as error:
        if "NaN" in str(error):
            raise NonFiniteLossError(_details(trainer, {}, str(error))) from error
        raise


def _details(trainer, losses: Dict[str, float], reason: str) -> dict:
    return {
        "reason": reason,
        "iteration": trainer.iter,
        "process": comm.get_rank(),
        "images": [f"{x.get('file_name', '?')} (image id {x.get('image_id', '?')})" for x in trainer.batch],
        "losses": losses,
        "lr": max(group["lr"] for group in trainer.optimizer.param_groups),
        "last_total_loss": trainer.storage.latest().get("total_loss", (None,))[0],
    }
