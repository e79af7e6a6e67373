"""COCO evaluation for detectron2's ``inference_on_dataset``: collects predictions, evaluates, explains, writes."""

import itertools
import json
import logging
import os
import pickle
from collections import OrderedDict

import detectron2.utils.comm as comm
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import BoxMode

from ..data.check_boxes import tolerated
from ..utils.atomic import atomic_write
from ..utils.errors import did_you_mean
from ..utils.output_folder import require_files, require_writable
from . import proposal_recall as box_proposals
from .coco_backend import resolve_backend
from .coco_metrics import evaluate_coco, metric_names
from .detections import internal_detections
from .diagnosis import diagnose
from .errors.write import FOLDER, find_mistakes, write_mistakes
from .ground_truth import GroundTruth
from .write_results import class_table, summary_table, write_reports, write_text

__all__ = ["INFERENCE", "COCODetectionEvaluator"]

INFERENCE = "inference"

logger = logging.getLogger(__name__)

_TASKS = ("bbox", "segm")


class COCODetectionEvaluator(DatasetEvaluator):
    """AP and AR of boxes and masks, AR of proposals, with files and explanations.

    Writes to ``<output_dir>/<subfolder>/<dataset_name>/``: coco_instances_results.json (the data set's ids, ascending
    image id), metrics.json, metrics.csv, per_class.csv; for a model that only proposes boxes box_proposals.pkl.
    Several processes give the same metrics and the same results file as one.

    Args:
        dataset_name: registered data set, with or without a COCO JSON file.
        output_dir: the run's output folder; None writes nothing.
        max_dets: detections an image that are evaluated, 1 or more.
        tasks: subset of ("bbox", "segm"); None takes what the model predicts.
        class_agnostic: adds the tasks ``bbox_agnostic`` (and ``segm_agnostic``): all classes taken as one.
        extra_metrics: callables ``(ground_truth, detections, *, task, max_dets, backend) -> ({task: {metric: value}},
            notes)``, called for every task; see :class:`ObjectCountGroups`.
        backend: "auto", "faster-coco-eval" or "pycocotools".
        distributed: gather all processes' predictions; False evaluates this process's own.
        subfolder: "inference", or another name for what is not the plain evaluation of a run.
        errors: writes ``errors/`` beside the metrics: the mistakes in the boxes, as tables and as a page. A fault in it is
            logged, and the evaluation goes on.
    """

    def __init__(
        self,
        dataset_name,
        output_dir=None,
        *,
        max_dets=100,
        tasks=None,
        class_agnostic=False,
        extra_metrics=(),
        backend="auto",
        distributed=True,
        subfolder=INFERENCE,
        errors=False,
    ):
        if isinstance(max_dets, bool) or not isinstance(max_dets, int) or max_dets < 1:
            raise ValueError(f"COCODetectionEvaluator: max_dets must be a whole number from 1, got {max_dets!r}.")
        if tasks is not None and (isinstance(tasks, str) or not tasks or set(tasks) - set(_TASKS)):
            raise ValueError(f"COCODetectionEvaluator: tasks must be a subset of {_TASKS} or None, got {tasks!r}.")
        self.dataset_name = dataset_name
        self.folder = os.path.join(output_dir, subfolder, dataset_name) if output_dir else None
        if self.folder:
            require_writable(self.folder, "another output folder (--output-dir, output_dir)")
            require_files(self.folder)
        self.max_dets = max_dets
        self.tasks = None if tasks is None else tuple(tasks)
        self.class_agnostic = class_agnostic
        self.extra_metrics = tuple(extra_metrics)
        self.backend = resolve_backend(backend, "COCODetectionEvaluator")
        self.distributed = distributed
        self.errors = bool(errors and output_dir)
        self.run_name = os.path.basename(os.path.abspath(output_dir)) if output_dir else ""
        self.reset()

    def require_metric(self, name):
        """Raise ``ValueError`` if ``name``, such as "bbox/AP", is not a metric that an evaluation may have.

        It may have what its tasks give, whatever the model predicts; tasks of ``extra_metrics`` are not looked into.
        """
        task, slash, metric = name.partition("/")
        known = self._metrics_by_task()
        if task in known and (metric in known[task] or self._is_of_class(task, metric)):
            return
        if slash and self.extra_metrics and task not in known:
            return
        names = [f"{task}/{metric}" for task, metrics in known.items() for metric in metrics]
        raise ValueError(
            f"the evaluation of {self.dataset_name!r} has no value {name!r}; "
            f"the main ones are {', '.join(f'{task}/{metrics[0]}' for task, metrics in known.items())}."
            f"{did_you_mean(name if slash else f'bbox/{name}', names)}"
        )

    def _metrics_by_task(self):
        tasks = self.tasks or _TASKS
        names = metric_names(self.max_dets)
        agnostic = [f"{task}_agnostic" for task in tasks] if self.class_agnostic else []
        return {**dict.fromkeys([*tasks, *agnostic], names), "box_proposals": box_proposals.METRICS}

    def _is_of_class(self, task, metric):
        classes = MetadataCatalog.get(self.dataset_name).get("thing_classes")
        if task not in _TASKS or not metric.startswith("AP-") or classes is not None and len(classes) < 2:
            return False
        return classes is None or metric[len("AP-"):].startswith(tuple(classes))  # an id may stand behind a name

    def reset(self):
        """Forgets the predictions of the last round."""
        self._predictions = []  # (image id, detections or None, proposals or None)
        self._kinds = set()  # of "bbox", "segm", "proposals": what the model gave, be it empty

    def process(self, inputs, outputs):
        """Takes a batch: ``inputs`` dicts with "image_id"; ``outputs`` dicts with "instances" (pred_boxes, scores,
        pred_classes, pred_masks?, mask_scores?) and/or "proposals" (proposal_boxes, objectness_logits), at the size of
        the image. Where there are mask_scores, masks are ranked by them, and boxes by scores."""
        for input_, output in zip(inputs, outputs):
            detections = proposals = None
            if "instances" in output:
                instances = output["instances"].to("cpu")
                self._kinds.update(["bbox", "segm"] if instances.has("pred_masks") else ["bbox"])
                detections = instances_to_coco_json(instances, input_["image_id"])
                if instances.has("mask_scores"):
                    scores = instances.mask_scores.tolist()
                    detections = [{**d, "mask_score": s} for d, s in zip(detections, scores)]
            if "proposals" in output:
                proposed = output["proposals"].to("cpu")
                self._kinds.add("proposals")
                proposals = (proposed.proposal_boxes.tensor.numpy(), proposed.objectness_logits.numpy())
            self._predictions.append((input_["image_id"], detections, proposals))

    def evaluate(self):
        """``{task: {metric: percentage or NaN}}`` on the main process, ``{}`` on the others (see
        :func:`build_evaluator`); tasks are bbox, segm, box_proposals and those of ``extra_metrics``."""
        gathered = self._gather()
        if gathered is None:
            return {}
        predictions, kinds = gathered
        ground_truth = GroundTruth.from_catalog(self.dataset_name)
        report = {
            "dataset": self.dataset_name,
            "json_file": ground_truth.json_file,
            "image_root": os.path.abspath(ground_truth.image_root) if ground_truth.image_root else "",
            "images": len(ground_truth.image_ids),
            "images_predicted": len(predictions),
            "objects": sum(ground_truth.objects_per_image()),
            "max_dets": self.max_dets,
            "backend": self.backend,
            "metrics": OrderedDict(),
            "per_class": {},
            "notes": self._missing_images(ground_truth, predictions),
        }
        if "proposals" in kinds:
            self._evaluate_proposals(ground_truth, predictions, report)
        if "bbox" in kinds or not kinds:
            self._evaluate_detections(ground_truth, predictions, kinds, report)
        self._tell(report)
        return report["metrics"]

    def _gather(self):
        """Predictions by ascending image id, each image once, and their kinds; None on all but the main process."""
        if not self.distributed:
            shards = [(self._predictions, self._kinds)]
        else:
            comm.synchronize()
            shards = comm.gather((self._predictions, self._kinds), dst=0)
            if not comm.is_main_process():
                return None
        by_image = {}
        for image_id, *prediction in itertools.chain.from_iterable(shard for shard, _ in shards):
            by_image.setdefault(image_id, prediction)  # a sampler may pad a shard with images of another
        ids = sorted(by_image, key=lambda i: (isinstance(i, str), i))
        return [(image_id, *by_image[image_id]) for image_id in ids], set().union(*(kinds for _, kinds in shards))

    def _missing_images(self, ground_truth, predictions):
        missing = len(set(ground_truth.image_ids) - {image_id for image_id, *_ in predictions})
        if not missing:
            return []
        return [f"{missing} of {len(ground_truth.image_ids)} images were not given to the model; they count as missed."]

    def _evaluate_detections(self, ground_truth, predictions, kinds, report):
        results, notes = self._with_dataset_categories(ground_truth, predictions)
        report["notes"] += notes
        if self.folder:
            write_text(os.path.join(self.folder, "coco_instances_results.json"), json.dumps(results))
        if not ground_truth.has_annotations:
            report["notes"].append("The data set has no annotations: predictions were written, nothing was evaluated.")
            return
        translated = internal_detections(ground_truth, results)
        for task in self.tasks or sorted(kinds & set(_TASKS)) or ("bbox",):
            problem = _cannot_evaluate(task, ground_truth, translated.detections)
            if problem:
                report["notes"].append(problem)
            else:
                report["notes"] += _left_out(task, ground_truth)
                self._evaluate_task(task, ground_truth, translated, report)

    def _with_dataset_categories(self, ground_truth, predictions):
        """All detections with the data set's category ids instead of class indices, and notes on impossible ones."""
        classes = ground_truth.class_to_category
        results = [d for _, detections, _ in predictions for d in detections or ()]
        known = [{**d, "category_id": classes[d["category_id"]]} for d in results if d["category_id"] < len(classes)]
        if len(known) == len(results):
            return known, []
        highest = max(d["category_id"] for d in results)
        return known, [
            f"{len(results) - len(known)} predictions were left out: their class index (up to {highest}) is not below "
            f"the {len(classes)} classes of {self.dataset_name!r}. Does NUM_CLASSES fit the data set?"
        ]

    def _evaluate_task(self, task, ground_truth, translated, report):
        settings = {"max_dets": self.max_dets, "backend": self.backend}
        if task == "segm":
            by_mask = [{**d, "score": d.get("mask_score", d["score"])} for d in translated.detections]
            translated = translated._replace(detections=by_mask)
        metrics = evaluate_coco(ground_truth, translated.detections, task, **settings)
        values = metrics.summary()
        rows = metrics.per_class(ground_truth)
        if len(rows) > 1:
            values.update({f"AP-{row['class']}": row["AP"] for row in rows})
        report["metrics"][task], report["per_class"][task] = values, rows
        if self.errors and task == "bbox":
            self._write_mistakes(ground_truth, translated.detections, metrics)
        if self.class_agnostic:
            agnostic = evaluate_coco(ground_truth, translated.detections, task, use_categories=False, **settings)
            report["metrics"][f"{task}_agnostic"] = agnostic.summary()
        report["notes"] += diagnose(ground_truth, translated, metrics, task)
        for extra in self.extra_metrics:
            more, notes = extra(ground_truth, translated.detections, task=task, **settings)
            report["metrics"].update(more)
            report["notes"] += notes

    def _write_mistakes(self, ground_truth, detections, metrics):
        title, folder = f"{self.run_name} on {self.dataset_name}", os.path.join(self.folder, FOLDER)
        try:
            path = write_mistakes(folder, find_mistakes(ground_truth, detections, metrics), detections, title)
            logger.info("Mistakes: %s", path)
        except Exception:  # of other libraries, of drawing: the training that this is a part of goes on
            logger.exception("The page of the mistakes was not written; training goes on. Again: d2_balanced errors RUN")

    def _evaluate_proposals(self, ground_truth, predictions, report):
        proposals = {image_id: found for image_id, _, found in predictions if found is not None}
        self._write_proposals(proposals)
        if ground_truth.has_annotations:
            known = {ground_truth.image_index[i]: p for i, p in proposals.items() if i in ground_truth.image_index}
            recall = box_proposals.proposal_recall(ground_truth, known, backend=self.backend)
            report["metrics"]["box_proposals"] = recall

    def _write_proposals(self, proposals):
        """In the format of detectron2's DATASETS.PROPOSAL_FILES_TEST, so that Fast R-CNN can be run on them."""
        if not self.folder:
            return
        content = {
            "ids": list(proposals),
            "boxes": [boxes for boxes, _ in proposals.values()],
            "objectness_logits": [scores for _, scores in proposals.values()],
            "bbox_mode": BoxMode.XYXY_ABS.value,
        }
        os.makedirs(self.folder, exist_ok=True)
        with atomic_write(os.path.join(self.folder, "box_proposals.pkl")) as file:
            pickle.dump(content, file)

    def _tell(self, report):
        if self.folder:
            write_reports(self.folder, report)
        for task, values in report["metrics"].items():
            shown = {metric: value for metric, value in values.items() if not metric.startswith("AP-")}
            logger.info("%s of %s:\n%s", task, self.dataset_name, summary_table(shown))
            if len(report["per_class"].get(task, ())) > 1:
                logger.info("%s per class:\n%s", task, class_table(report["per_class"][task]))
        for note in report["notes"]:
            logger.warning("Evaluation of %s: %s", self.dataset_name, note)


def _cannot_evaluate(task, ground_truth, detections):
    """Why the masks cannot be evaluated, or None."""
    if task == "bbox":
        return None
    if any("segmentation" not in detection for detection in detections):
        return "segm: not evaluated, for the model predicts no masks."
    without = _without_mask(ground_truth)
    annotations = len(ground_truth.annotations)
    if without and (len(without) > tolerated(annotations) or len(without) == annotations):
        return f"segm: not evaluated, for annotation {without[0]!r} has no mask."
    return None


def _left_out(task, ground_truth):
    without = _without_mask(ground_truth) if task == "segm" else ()
    return [f"segm: annotations without a mask are left out: {without}."] if without else []


def _without_mask(ground_truth):
    return [a["source_id"] for a in ground_truth.annotations if "segmentation" not in a]
