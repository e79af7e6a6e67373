"""What images are resized to, and whether something is left of them and of their objects then."""

from typing import NamedTuple

import detectron2.data.transforms as T
import numpy as np

__all__ = ["DEFAULT_SIZE", "InputSize", "check_input_size", "input_size_of"]

THIN = 16  # pixels of the short edge below which a strip is warned of where the model's sizes are not known
SMALL, SHRUNK = 8, 0.5  # pixels an object is left with, and the scale below which that is the resizing's doing


class InputSize(NamedTuple):
    """The short edge is brought to ``short_edge`` pixels, but the long one to ``max_size`` at most."""

    short_edge: int
    max_size: int

    def scales(self, sizes):
        """(I,) factors for images of widths and heights (I, 2), as of detectron2's ``ResizeShortestEdge``."""
        return np.minimum(self.short_edge / sizes.min(1), self.max_size / sizes.max(1))

    def __str__(self):
        return f"short edge {self.short_edge}, long edge at most {self.max_size}"


DEFAULT_SIZE = InputSize(800, 1333)
"""detectron2's."""


def input_size_of(mapper):
    """The smallest :class:`InputSize` of a data mapper; None if it does not resize, or by other means."""
    augmentations = getattr(getattr(mapper, "augmentations", None), "augs", ())
    for augmentation in augmentations:
        if isinstance(augmentation, T.ResizeShortestEdge):
            smallest = int(min(augmentation.short_edge_length))
            return InputSize(smallest, int(augmentation.max_size)) if smallest else None  # 0: images keep their size
    return None


def check_input_size(table, report, input_size, is_known=True):
    """Images that the resizing leaves no pixel of, or that are so large beside their objects that those vanish.

    Args:
        input_size: :class:`InputSize` of training or evaluation; None: nothing is checked.
        is_known: whether it is the model's; otherwise a guess, which strips are only warned for.
    """
    if input_size is None or not len(table.sizes):
        return
    sizes = np.where(table.sizes > 0, table.sizes, np.nan)
    scales = input_size.scales(sizes)
    short = sizes.min(1) * scales
    gone = short < (0.5 if is_known else THIN)  # False for NaN
    if gone.any():
        row = np.flatnonzero(gone)[short[gone].argmin()]
        before, after = (f"{int(w)} x {int(h)}" for w, h in (sizes[row], sizes[row] * scales[row] + 0.5))
        say, left = (report.error, "nothing") if is_known else (report.warn, "little")
        say(f"{int(gone.sum())} image(s) that {left} is left of when they are resized ({input_size}): {before} becomes "
            f"{after}", table.image_places(gone), "Cut them into tiles, or raise INPUT.MAX_SIZE_TRAIN and "
            "INPUT.MAX_SIZE_TEST (lazy: max_size of the augmentations).")
    _warn_of_vanishing_objects(table, scales, input_size, report)


def _warn_of_vanishing_objects(table, scales, input_size, report):
    rows = np.flatnonzero(table.ordinary())
    scale = scales[table.image_rows[rows]]
    sides = np.sqrt(np.abs(table.boxes[rows, 2:].prod(1))) * scale
    rows, scale, sides = (column[np.isfinite(sides)] for column in (rows, scale, sides))
    if len(rows) and np.median(scale) < SHRUNK and np.median(sides) < SMALL:
        side = f"{np.median(sides):.1f}"
        report.warn(f"the images are much larger than their objects: resized ({input_size}) to {np.median(scale):.2g} "
                    f"of their size, half of the objects are smaller than {side} x {side} pixels",
                    table.places(rows[sides <= np.median(sides)]), "Hardly any of them can be found so. Cut the images "
                    "into tiles, or raise INPUT.MIN_SIZE_TRAIN, INPUT.MAX_SIZE_TRAIN and those of TEST.")
