"""Values that are legal and rarely meant: areas that do not fit, crowd marks on single objects."""

import numpy as np

__all__ = ["check_values"]

MANY_CROWDS = 0.1  # share of the annotations; COCO has one in a hundred
MANY_ODD_AREAS = 0.01
ROUNDING = 16  # square pixels by which an area may be above its box's


def check_values(table, report, crowds_are_meant=False):
    """Warns of what looks like a mistake of the annotation tool.

    Args:
        crowds_are_meant: the data set marks regions with ``iscrowd`` by its own rules (CrowdHuman, VOC's test set).
    """
    if table.records is not None:
        _check_areas(table, report)
        rows = np.array([i == 0 and type(i) is int for i in table.ids], dtype=bool)
        if rows.any():
            report.warn("annotation id 0", table.places(rows), "pycocotools alone takes it for 'not matched'.")
    if not crowds_are_meant:
        _check_crowds(table, report)


def _check_areas(table, report):
    objects = ~table.left_out
    given = np.isfinite(table.areas) & (table.areas > 0)
    rows = objects & ~given
    if rows.any():
        shown = [repr(table.records[row].get("area", "none"))[:20] for row in np.flatnonzero(rows)]
        shown = list(dict.fromkeys(shown))
        what = f"annotation(s) whose 'area' is no positive number (it is {', '.join(shown[:4])})"
        report.warn(f"{int(rows.sum())} {what}", table.places(rows),
                    "The area of the mask is taken, or that of the box; it decides what is small, medium and large in "
                    "the evaluation. pycocotools alone cannot evaluate such a file.")
    box_areas = table.boxes[:, 2:].prod(1)
    with np.errstate(invalid="ignore"):
        large = objects & given & (table.areas > 1.5 * box_areas + ROUNDING)
        small = objects & given & (table.areas < 0.01 * box_areas)
    odd = large | small if small.sum() > MANY_ODD_AREAS * len(table) else large
    if odd.any():
        values = table.areas[odd]
        what = f"annotation(s) whose 'area' does not fit their box (it is {values.min():g} to {values.max():g})"
        report.warn(f"{int(odd.sum())} {what}", table.places(odd),
                    "It is used as it is, and decides what is small, medium and large in the evaluation. Converters "
                    "write a constant, or areas of images of another size; delete the field, and mask or box tell.")


def _check_crowds(table, report):
    crowd, whole = table.crowd & (table.class_rows >= 0), max(len(table), 1)
    kinds = (crowd, table.ordinary())
    per_class = [np.bincount(table.class_rows[rows], minlength=len(table.class_names)) for rows in kinds]
    only = [name for name, crowds, objects in zip(table.class_names, *per_class) if crowds and not objects]
    if crowd.sum() <= MANY_CROWDS * whole and not only:
        return
    classes = f"; of {', '.join(only[:5])} there is nothing else" if only else ""
    encoded = sum(isinstance(table.segmentations[row], dict) for row in np.flatnonzero(crowd))
    report.warn(f"{int(crowd.sum())} of {len(table)} annotations are marked as crowds (iscrowd 1){classes}",
                table.places(crowd),
                "They are not trained as objects: what they cover is background (with INPUT.IGNORE_REGIONS: ignored), "
                f"and finding them does not count. {encoded} of them are run-length encoded; CVAT and other tools mark "
                "what is drawn with a brush so. Set iscrowd to 0 for single objects.")
