"""Objects in the form of the library supervision, which tracks, counts and draws them."""

from __future__ import annotations

from typing import Sequence

import numpy as np
from detectron2.structures import Instances

from ..utils.extras import import_extra

__all__ = ["detections_of"]


def detections_of(instances: Instances, class_names: Sequence[str]):
    """supervision's ``Detections`` of one image, with names in ``data["class_name"]``; see its ``from_detectron2``.

    Raises ``InstallError`` where supervision is not installed.
    """
    detections = import_extra("supervision", "supervision").Detections.from_detectron2({"instances": instances})
    detections.data["class_name"] = np.array([class_names[index] for index in detections.class_id], dtype=str)
    return detections
