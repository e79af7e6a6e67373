"""The numbers that the findings rest on, from the counts of the first stage."""

from __future__ import annotations

from typing import Dict, FrozenSet, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from ...recording.file import Recording, merge
from ..curves import bin_centres, spans

__all__ = ["Evidence", "between", "evidence_of", "mean_positives", "ratio"]


class Evidence(NamedTuple):
    """Counts (``recording/counts.py``) of the main branch in the first stage, and metrics.

    ``early`` and ``late`` cover the first and the last quarter of the recording, and are ``None`` for one window.
    """

    whole: Dict[str, np.ndarray]
    early: Optional[Dict[str, np.ndarray]]
    late: Optional[Dict[str, np.ndarray]]
    evaluations: Dict[str, dict]
    by_objects: Dict[str, dict]
    class_names: Sequence[str]
    components: FrozenSet[str]
    iterations: Optional[int] = None  # of training; ``None`` if nothing says so

    @property
    def latest(self) -> Dict[str, np.ndarray]:
        """The last quarter, or everything if there is no history. Early in training the heads' answers are random."""
        return self.whole if self.late is None else self.late


def evidence_of(data) -> Evidence:
    """The evidence of ``gather.RunData``."""
    key = _main_branch(data.recording)
    parts = spans(data.recording)
    early, late = (parts[0][2].get(key), parts[-1][2].get(key)) if len(parts) > 1 else (None, None)
    whole = merge(data.recording.windows)[key]
    return Evidence(
        whole, early, late, data.evaluations, data.by_objects, data.class_names, data.components, data.iterations
    )


def _main_branch(recording: Recording) -> Tuple[int, int]:
    """The branch of the first stage that has the most positives. Its boxes are the ones that are used."""
    merged = merge(recording.windows)
    return max((key for key in merged if key[0] == 0), key=lambda key: (merged[key]["positives"][0], -key[1]))


def between(values: np.ndarray, low: float, high: float = 1.0) -> float:
    """Sum of the bins of [0, 1] that lie from ``low`` to ``high``."""
    centres = bin_centres(values)
    return float(values[(centres > low) & (centres < high)].sum())


def ratio(part: float, whole: float) -> float:
    """``part / whole``; NaN where ``whole`` is 0."""
    return float(part) / float(whole) if whole else float("nan")


def mean_positives(fields: Dict[str, np.ndarray], low: int, high: int) -> Tuple[float, float]:
    """For images with ``low`` to ``high`` objects: mean number of positive proposals, and number of such images."""
    images = fields["images_by_objects"][low : high + 1].sum()
    return ratio(fields["positives_by_objects"][low : high + 1].sum(), images), float(images)
