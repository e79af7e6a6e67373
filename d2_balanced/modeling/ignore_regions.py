"""Ignore regions: boxes that hold objects which nobody annotated one by one, such as crowds and reflections.

What lies in one is neither foreground nor background: it is not sampled, and not counted in statistics. The regions
travel with an image's targets (:class:`TargetsWithRegions`), from the data mapper to the RPN and the ROI heads.
"""

from detectron2.structures import Instances, pairwise_ioa

__all__ = ["TargetsWithRegions", "ignore_regions_of", "in_ignore_region"]

MIN_OVERLAP = 0.5
"""A box is in a region if more than this fraction of its own area is (CrowdHuman's evaluation uses the same)."""


class TargetsWithRegions(Instances):
    """An image's targets, and beside them ``ignore_regions``: no field, as there may be more or fewer of them.

    Args:
        targets: the ``Instances`` of the image's objects.
        ignore_regions: ``Boxes`` in the same coordinates.
    """

    def __init__(self, targets, ignore_regions):
        super().__init__(targets.image_size, **targets.get_fields())
        self._ignore_regions = ignore_regions

    @property
    def ignore_regions(self):
        return self._ignore_regions

    def to(self, *args, **kwargs):
        """Targets and regions on another device."""
        return TargetsWithRegions(super().to(*args, **kwargs), self._ignore_regions.to(*args, **kwargs))

    def __getitem__(self, item):
        """Some of the targets; all the regions stay."""
        return TargetsWithRegions(super().__getitem__(item), self._ignore_regions)


def ignore_regions_of(targets):
    """The ``Boxes`` of an image's ignore regions; None if it has none. Reads nothing from the device."""
    regions = getattr(targets, "ignore_regions", None)
    return regions if regions is not None and len(regions) else None


def in_ignore_region(boxes, regions):
    """(N,) bool: more than half of the box's own area lies in one of the regions.

    Args:
        boxes: ``Boxes`` (N); an empty box lies in no region.
        regions: ``Boxes`` (M), M >= 1.
    """
    return (pairwise_ioa(regions, boxes) > MIN_OVERLAP).any(dim=0)
