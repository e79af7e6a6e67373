"""Pictures of detections beside the ground truth, and a contact sheet of them.

From a trained model, or from the results file of an evaluation:

    python -m d2_balanced.analysis.pictures --config-file CONFIG --weights model_final.pth --output pictures
    python -m d2_balanced.analysis.pictures --dataset NAME --results coco_instances_results.json --output pictures

With ``--beside``, what the same weights find with other settings, too (IoU-Uniform R-CNN, figure 9):

    python -m d2_balanced.analysis.pictures --config-file CONFIG --weights model_final.pth \\
        --beside MODEL.BALANCED.IOU_BRANCH.EFO False --output with_and_without_efo
"""

import os

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import BoxMode
from PIL import Image

from ..arguments.pictures import argument_parser
from ..data.class_names import distinct_names
from ..data.coco_paths import register_by_path  # importing it registers the data sets of this package, too
from ..data.image_file import read_image
from ..data.registered import load_registered
from ..engine.experiment import OwnData
from ..engine.open import open_checkpoint, open_experiment
from ..evaluation.detections import load_results
from ..utils.command import command
from ..utils.drawing import contact_sheet, draw_objects, side_by_side
from ..utils.errors import ConfigError, DataError
from ..utils.fonts import font_of, names_to_draw
from ..utils.output_folder import require_writable

__all__ = ["choose_evenly", "main", "save_pictures", "save_pictures_of_model"]

_PANEL = 480  # pixels that the longer side of a panel is enlarged to


def choose_evenly(records, num):
    """At most ``num`` of the records, evenly spaced, the same ones in every run. ValueError if ``num`` is below 1."""
    if num < 1:
        raise ConfigError(f"choose_evenly: num must be 1 or more, got {num}.")
    count = min(num, len(records))
    return [records[k * len(records) // count] for k in range(count)]


def save_pictures(dataset_name, predictions_json, output_dir, num=12, score_thresh=0.5, beside=None):
    """Pictures from a COCO results file.

    Args:
        dataset_name: registered data set that the predictions are of.
        predictions_json: path of a COCO results file (``coco_instances_results.json``), or the list in it.
        output_dir: folder for the pictures; it is made.
        num: number of images, evenly spaced over the data set.
        score_thresh: detections below it are not drawn.
        beside: ``{title: results}`` of more panels, of what is drawn beside the first results.

    Returns:
        list of paths: one PNG per image, and ``contact_sheet.png`` last.

    Raises:
        ValueError: ``num`` below 1, a data set without images, a file that is no results file.
    """
    results = predictions_json if isinstance(predictions_json, list) else load_results(predictions_json)
    records = load_registered(dataset_name)
    unknown = {str(each["image_id"]) for each in results} - {str(record["image_id"]) for record in records}
    if unknown:
        raise DataError(f"Detections are of images that {dataset_name!r} has not: {', '.join(sorted(unknown)[:5])}.")
    records = choose_evenly(records, num)
    columns = {title: _by_image(records, each, score_thresh) for title, each in {"": results, **(beside or {})}.items()}
    return _save(dataset_name, records, columns, output_dir, score_thresh)


def _by_image(records, results, score_thresh):
    """``{image id: its results with at least this score}``."""
    by_image = {record["image_id"]: [] for record in records}
    for result in results:
        if result["image_id"] in by_image and result["score"] >= score_thresh:
            by_image[result["image_id"]].append(result)
    return by_image


def save_pictures_of_model(model, mapper, dataset_name, output_dir, num=12, score_thresh=0.5):
    """Pictures of what a model finds; it is run on ``num`` images only.

    Args:
        model: a detector; it is left in evaluation mode.
        mapper: detectron2's test mapper, dataset dict -> the model's input.
        The others, what is returned and what is raised: as in :func:`save_pictures`.
    """
    return save_pictures(dataset_name, _found_by(model, mapper, dataset_name, num), output_dir, num, score_thresh)


def _found_by(model, mapper, dataset_name, num):
    """A model's detections, as in a COCO results file, in the ``num`` images that are drawn."""
    model.eval()
    to_category = {k: category for category, k in _contiguous_ids(dataset_name).items()}
    results = []
    for record in choose_evenly(load_registered(dataset_name), num):
        with torch.no_grad():
            (output,) = model([mapper(record)])
        if "instances" not in output:
            raise ConfigError("save_pictures_of_model: this model has no detections; it only proposes boxes.")
        for found in instances_to_coco_json(output["instances"].to("cpu"), record["image_id"]):
            results.append({**found, "category_id": to_category.get(found["category_id"], found["category_id"])})
    return results


def _contiguous_ids(dataset_name):
    """Class index by the data set's category id; the same number where the data set has no mapping."""
    metadata = MetadataCatalog.get(dataset_name)
    identity = {k: k for k in range(len(metadata.get("thing_classes", ())))}
    return metadata.get("thing_dataset_id_to_contiguous_id", identity)


def _save(dataset_name, records, columns, output_dir, score_thresh):
    if not records:
        raise DataError(f"save_pictures: data set {dataset_name!r} has no images.")
    os.makedirs(output_dir, exist_ok=True)
    found = [result for by_image in columns.values() for results in by_image.values() for result in results]
    draw = _Drawing(dataset_name, any("segmentation" in result for result in found))
    paths, pictures = [], []
    for number, record in enumerate(records):
        stem = os.path.splitext(os.path.basename(record["file_name"]))[0]
        results = {title: by_image[record["image_id"]] for title, by_image in columns.items()}
        pictures.append(draw.picture(record, results, stem, score_thresh))
        paths.append(os.path.join(output_dir, f"{number:02d}_{stem}.png"))
        pictures[-1].save(paths[-1])
    paths.append(os.path.join(output_dir, "contact_sheet.png"))
    contact_sheet(pictures, columns=min(2, len(pictures)) if len(columns) == 1 else 1).save(paths[-1])
    return paths


class _Drawing:
    """Draws images of one data set. Either both sides have masks or neither has, so that they can be compared."""

    def __init__(self, dataset_name, with_masks):
        names, self.class_index = MetadataCatalog.get(dataset_name).get("thing_classes", ()), _contiguous_ids(dataset_name)
        id_of = {index: category for category, index in self.class_index.items()}
        ids = [id_of.get(k, k) for k in range(len(names))]
        self.names = names_to_draw(distinct_names(names, ids), [f"id {i}" for i in ids])
        self.with_masks = with_masks

    def picture(self, record, columns, title, score_thresh):
        """``columns``: ``{title: results}`` of the panels beside the ground truth."""
        image = Image.fromarray(read_image(record["file_name"], format="RGB"))
        truth = [self._annotation(annotation, image.size) for annotation in record.get("annotations", ())]
        found = [[self._result(r) for r in sorted(results, key=lambda r: r["score"])] for results in columns.values()]
        scale = min(max(_PANEL / max(image.size), 1.0), 4.0)
        panels = [draw_objects(image, objects, scale) for objects in (truth, *found)]  # the best is drawn on top
        if not title.isascii() and font_of(title) is None:
            title = f"image {record['image_id']}"
        titles = [f"{len(each)} detections with score >= {score_thresh:g}" for each in found]
        titles = [f"{name}: {text}" if name else text for name, text in zip(columns, titles)]
        return side_by_side(panels, [f"{title}: {len(truth)} objects", *titles])

    def _annotation(self, annotation, size):
        crowd, index = bool(annotation.get("iscrowd", 0)), annotation["category_id"]
        return {
            "box": BoxMode.convert(list(annotation["bbox"]), annotation["bbox_mode"], BoxMode.XYXY_ABS),
            "class_index": index,
            "label": "crowd" if crowd else self._name(index),
            "mask": _mask(annotation.get("segmentation"), *size) if self.with_masks else None,
            "crowd": crowd,
        }

    def _result(self, result):
        index = self.class_index.get(result["category_id"], result["category_id"])
        return {
            "box": BoxMode.convert(list(result["bbox"]), BoxMode.XYWH_ABS, BoxMode.XYXY_ABS),
            "class_index": index,
            "label": f"{self._name(index)} {100 * result['score']:.0f}",
            "mask": _mask(result.get("segmentation")),
        }

    def _name(self, index):
        return self.names[index] if index < len(self.names) else f"class {index}"


def _mask(segmentation, width=None, height=None):
    """(H, W) bool from polygons or an RLE; None where there is no mask."""
    if not segmentation:
        return None
    if isinstance(segmentation, list):
        segmentation = mask_util.merge(mask_util.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        segmentation = mask_util.frPyObjects(segmentation, *segmentation["size"])
    return np.asarray(mask_util.decode(segmentation), dtype=bool)


@command("python -m d2_balanced.analysis.pictures")
def main(argv=None):
    """The commands at the top of this module; prints where the pictures are and returns their paths."""
    parser = argument_parser()
    args = parser.parse_args(argv)
    if args.beside and not args.config_file:
        parser.error("--beside needs --config-file: a results file has one set of settings")
    if bool(args.config_file) == bool(args.results):
        parser.error("give either --config-file (a model) or --results (the results file of an evaluation)")
    if bool(args.json) != bool(args.images):
        parser.error("--json and --images belong together")
    require_writable(args.output)
    paths = _run(args, parser)
    print(f"{len(paths) - 1} pictures in {args.output}; all in one: {paths[-1]}")
    return paths


def _run(args, parser):
    if args.results:
        if not args.dataset and not args.json:
            parser.error("--results needs --dataset, or --json and --images")
        dataset = args.dataset or register_by_path("pictures", args.json, args.images, replace=True).name
        return save_pictures(dataset, args.results, args.output, args.num, args.score_thresh)
    model, mapper, datasets = _open_model(args, args.overrides)
    dataset = args.dataset or next(iter(datasets), None)
    if dataset is None:
        parser.error("the config names no test data set: give --dataset, or --json and --images")
    results, beside = _found_by(model, mapper, dataset, args.num), {}
    if args.beside:
        other, mapper, _ = _open_model(args, [*args.overrides, *args.beside])
        beside[" ".join(args.beside)] = _found_by(other, mapper, dataset, args.num)
    return save_pictures(dataset, results, args.output, args.num, args.score_thresh, beside)


def _open_model(args, overrides):
    """The trained model of a config, its test mapper, and the names of its test data sets."""
    own_data = OwnData(val_json=args.json or "", val_images=args.images or "")
    experiment = open_experiment(args.config_file, overrides, own_data)
    model = open_checkpoint(experiment, args.weights or "")
    return model, experiment.build_mapper(False), experiment.test_datasets


if __name__ == "__main__":
    main()
