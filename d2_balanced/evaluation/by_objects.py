"""AP on images with few and with many objects (RGA/PRM paper, fig. 2), for any detector.

    python -m d2_balanced.evaluation.by_objects --gt val.json --results coco_instances_results.json
"""

import math

from tabulate import tabulate

from ..arguments.by_objects import argument_parser
from ..utils.command import command
from ..utils.errors import usage
from .coco_metrics import evaluate_coco
from .detections import internal_detections, load_results
from .diagnosis import unknown_id_notes
from .ground_truth import GroundTruth

__all__ = ["ObjectCountGroups", "main"]

_METRICS = {"AP": None, "AP50": 50, "AP75": 75}


class ObjectCountGroups:
    """Extra metrics of :class:`COCODetectionEvaluator`: AP, AP50 and AP75 on images grouped by number of objects.

    Args:
        starts: least number of objects of each group, ascending, from 1; the last group has no upper end. The paper's
            [1, 3], [4, 7], [8, inf) is (1, 4, 8).
    """

    def __init__(self, starts=(1, 4, 8)):
        starts = tuple(starts)
        ascending = all(a < b for a, b in zip(starts, starts[1:]))
        if not starts or starts[0] < 1 or not ascending or any(int(s) != s for s in starts):
            raise ValueError(f"ObjectCountGroups: starts must be ascending whole numbers from 1, got {starts}.")
        self.groups = list(zip(starts, starts[1:] + (math.inf,)))

    def __call__(self, ground_truth, detections, *, task="bbox", max_dets=100, backend="auto"):
        """Metrics of one task: ``({"bbox_by_objects": {"AP[1-3]": .., "AP50[1-3]": .., "images[1-3]": ..}}, notes)``.

        Objects are annotations that are neither crowd nor ignored; images without any are in no group. A group
        without images gives NaN and a note.
        """
        counts = ground_truth.objects_per_image()
        metrics, notes = {}, []
        for low, high in self.groups:
            name = f"{low}-{high - 1}" if high < math.inf else f"{low}+"
            images = [image for image, count in enumerate(counts) if low <= count < high]
            metrics.update(self._group(name, images, ground_truth, detections, task, max_dets, backend))
            metrics[f"images[{name}]"] = len(images)
            if not images:
                notes.append(f"{task}: no image has {name} objects, so the AP of that group is undefined.")
        return {f"{task}_by_objects": metrics}, notes

    def _group(self, name, images, ground_truth, detections, task, max_dets, backend):
        if not images:
            return {f"{metric}[{name}]": float("nan") for metric in _METRICS}
        wanted = set(images)
        metrics = evaluate_coco(
            ground_truth,
            [detection for detection in detections if detection["image_id"] in wanted],
            task,
            max_dets=max_dets,
            backend=backend,
            image_indices=images,
        )
        return {f"{metric}[{name}]": metrics.ap(iou) for metric, iou in _METRICS.items()}


@command("python -m d2_balanced.evaluation.by_objects")
def main(argv=None):
    """The command at the top of this module; prints one row per group and returns the metrics."""
    args = argument_parser().parse_args(argv)
    values, notes = _from_files(args)
    names = [key[len("images[") : -1] for key in values if key.startswith("images[")]
    rows = [[name, values[f"images[{name}]"]] + [values[f"{metric}[{name}]"] for metric in _METRICS] for name in names]
    print(tabulate(rows, headers=["objects", "images", *_METRICS], floatfmt=".2f"))
    for note in notes:
        print(f"note: {note}")
    return values


def _from_files(args):
    with usage("--starts", ValueError):
        groups = ObjectCountGroups(args.starts)
    ground_truth = GroundTruth.from_file(args.gt)
    translated = internal_detections(ground_truth, load_results(args.results))
    settings = {"task": args.task, "max_dets": args.max_dets}
    metrics, notes = groups(ground_truth, translated.detections, **settings)
    (values,) = metrics.values()
    return values, notes + unknown_id_notes(ground_truth, translated)


if __name__ == "__main__":
    main()
