"""Evaluation: COCO metrics with AP at every IoU threshold, CrowdHuman's metrics, AP by number of objects.

:func:`build_evaluator` is the one call that yacs and LazyConfig runs share; the classes are for code that wants more.
"""

from detectron2.data import MetadataCatalog

from .by_objects import ObjectCountGroups
from .coco import INFERENCE, COCODetectionEvaluator
from .crowdhuman import CrowdHumanMetrics, evaluate_crowdhuman

__all__ = [
    "COCODetectionEvaluator",
    "CrowdHumanMetrics",
    "ObjectCountGroups",
    "build_evaluator",
    "evaluate_crowdhuman",
]


def build_evaluator(
    dataset_name,
    output_dir=None,
    *,
    max_dets=100,
    tasks=None,
    class_agnostic=False,
    by_objects=False,
    backend="auto",
    distributed=True,
    subfolder=INFERENCE,
    errors=True,
):
    """The evaluator of a registered data set, for detectron2's ``inference_on_dataset``.

    A data set whose metadata say ``evaluator_type="crowdhuman"`` gets CrowdHuman's metrics beside COCO's; every other
    one, with a COCO JSON file or only dataset dicts (VOC), gets COCO's.

    Args:
        dataset_name: name in detectron2's ``DatasetCatalog``.
        output_dir: the run's output folder; files go to ``output_dir/<subfolder>/<dataset_name>/``. None: no files.
        max_dets: detections an image that are evaluated (``TEST.DETECTIONS_PER_IMAGE``), 1 or more. COCO's 100
            are also what counts where that setting is -1, which keeps all.
        tasks: subset of ("bbox", "segm"); None takes what the model predicts.
        class_agnostic: adds a task ``bbox_agnostic``: the same metrics with all classes taken as one.
        by_objects: adds a task ``bbox_by_objects``: AP on images with 1-3, 4-7 and 8 or more objects.
        backend: "auto", "faster-coco-eval" or "pycocotools".
        distributed: gather the predictions of all processes (True), or evaluate this process's own.
        errors: with ``output_dir``, adds the page of the mistakes, ``errors/errors.html``.

    Returns:
        COCODetectionEvaluator: its ``evaluate()`` returns ``{task: {metric: value in 0..100 or NaN}}`` on the main
        process and ``{}`` on the others. Keys: ``AP``, ``AP50`` .. ``AP95``, ``APs/m/l``, ``AR@1`` ..., and
        ``AP-<class>`` where there are two classes or more.
    """
    extra_metrics = [ObjectCountGroups()] if by_objects else []
    if MetadataCatalog.get(dataset_name).get("evaluator_type") == "crowdhuman":
        extra_metrics.append(CrowdHumanMetrics())
    return COCODetectionEvaluator(
        dataset_name,
        output_dir,
        max_dets=max_dets,
        tasks=tasks,
        class_agnostic=class_agnostic,
        extra_metrics=extra_metrics,
        backend=backend,
        distributed=distributed,
        subfolder=subfolder,
        errors=errors,
    )
