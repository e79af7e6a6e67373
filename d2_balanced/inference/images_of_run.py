"""The images that a run has itself, for what is tried on a trained detector."""

from __future__ import annotations

from typing import List

from ..data.registered import load_registered
from ..engine.open import open_run
from ..utils.errors import DataError

__all__ = ["images_of_run"]


def images_of_run(folder: str, number: int) -> List[str]:
    """``number`` image files, evenly spread, of the set that a run is evaluated on, or trained on where there is none.

    All of a smaller set. Raises ``DataError`` where its data are gone.
    """
    experiment = open_run(folder)
    experiment.use_own_data()
    names = [*experiment.test_datasets, *experiment.train_datasets]
    paths = [record["file_name"] for record in load_registered(names[0])] if names else []
    if not paths:
        raise DataError(f"The run in {folder!r} has no images: give some (--images).")
    return [paths[k * len(paths) // number] for k in range(number)] if len(paths) > number else paths
