"""The generated data set: boxes and masks that are exact, drawn in seconds, the same on every machine.

``python -m d2_balanced.data.generated --output DIR [--train-images 200 --val-images 100 --size 256 --seed 0 --level mild]``

Writes ``DIR/{train,val}/*.png``, ``DIR/annotations/{train,val}.json`` (COCO format, polygons), ``DIR/settings.json``.
Masks and boxes are those of the visible part of an object, to the pixel: a box ``[x, y, w, h]`` covers the pixel
columns x .. x + w - 1, so its edges are the edges of pixels, and the polygons run along pixel edges too. No edge is
blurred in the pictures, so nothing about a box is left to taste, and AP at high IoU measures the detector alone.
Without ``--output`` it goes to ``$DETECTRON2_DATASETS/generated``, where the names ``generated_train`` and
``generated_val`` look for it.
"""

import json
import os
import shutil
import sys
import tempfile

from PIL import Image
from tqdm import tqdm

from ..arguments.generated import HIGHEST, LOWEST, argument_parser
from ..utils.command import command
from ..utils.errors import ConfigError, DataError, OutputError, usage
from .outlines import CLASS_NAMES
from .raster import box_of, trace
from .roots import generated_folder
from .scene import LEVELS, draw_scene

__all__ = ["generate", "ensure", "annotation_file", "main"]

VERSION = 2
"""Part of the settings; raise it when the drawing changes, so that an older folder is not taken for a new one."""

SPLITS = ("train", "val")


def generate(output, *, train_images=200, val_images=100, size=256, seed=0, level="mild"):
    """Draws the data set into the folder ``output`` unless it is already there with the same settings.

    Args:
        output: folder; it appears only when it is complete, also when several processes generate it at once.
        train_images, val_images: pictures of each split, at least 1; the first n do not depend on how many follow.
        size: longer side of the pictures in pixels, at least 64; the other is 3/4 of it, and objects scale with it.
        seed: integer from 0; another seed gives other pictures of the same kind.
        level: ``mild``, or ``hard``: more look-alikes and turns, and shapes that hide up to half of each other.
    Returns:
        whether anything was written.
    Raises:
        ValueError: a setting out of range. DataError: ``output`` holds something else.
    """
    settings = {"version": VERSION, "train_images": train_images, "val_images": val_images, "size": size, "seed": seed}
    if level != "mild":  # folders from before there were levels are mild and do not say so
        settings["level"] = level
    _validate(settings)
    if _is_there(output, settings):
        return False
    parent = os.path.dirname(os.path.abspath(output))
    os.makedirs(parent, exist_ok=True)
    unfinished = tempfile.mkdtemp(prefix=os.path.basename(os.path.abspath(output)) + ".unfinished-", dir=parent)
    try:
        for split in SPLITS:
            _write_split(unfinished, split, settings)
        _write_json(os.path.join(unfinished, "settings.json"), settings)
        os.chmod(unfinished, 0o755)
        return _move_into_place(unfinished, output, settings)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def ensure(folder):
    """Draws the data set with the default settings if ``folder`` has none; one of other settings is used as it is.

    Raises:
        DataError: it holds something else, is not complete, or was drawn by another version of this module.
    """
    if not os.path.isdir(folder) or not os.listdir(folder):
        generate(folder)
        return
    found = _read_settings(folder)
    _is_there(folder, {**found, "version": VERSION})


def _validate(settings):
    for key, low in LOWEST.items():
        value = settings[key]
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= HIGHEST:
            raise ConfigError(f"generate: {key} must be an integer of {low} or more, got {value!r}")
    if settings.get("level", "mild") not in LEVELS:
        raise ConfigError(f"generate: level must be one of {', '.join(LEVELS)}, got {settings['level']!r}")


def _is_there(output, settings):
    """Whether ``output`` holds this data set; an error if it holds anything else."""
    if not os.path.isdir(output) or not os.listdir(output):
        return False
    found = _read_settings(output)
    if found != settings:
        raise DataError(f"{output} holds a data set of other settings: {found}, wanted {settings}. "
                           "Give another folder, or delete it.")
    for split in SPLITS:
        images = os.path.join(output, split)
        count = len(os.listdir(images)) if os.path.isdir(images) else 0
        if count < settings[split + "_images"] or not os.path.isfile(annotation_file(output, split)):
            raise DataError(f"{output} is incomplete: {count} images of {settings[split + '_images']} in {images}, "
                               f"or no {annotation_file(output, split)}. Delete {output}; it is generated again.")
    return True


def _read_settings(output):
    path = os.path.join(output, "settings.json")
    try:
        with open(path) as f:
            found = json.load(f)
        _validate(found)
    except (OSError, ValueError, TypeError, KeyError):
        raise DataError(f"{output} is not empty and holds no generated data set (no readable {path}). "
                           "Give another folder, or delete it.") from None
    return found


def annotation_file(output, split):
    """Path of a split's COCO JSON."""
    return os.path.join(output, "annotations", split + ".json")


def _move_into_place(unfinished, output, settings):
    try:
        os.rename(unfinished, output)  # also replaces an empty folder
    except OSError:
        if not _is_there(output, settings):  # else another process was faster
            raise
        return False
    return True


def _write_split(folder, split, settings):
    count, size = settings[split + "_images"], settings["size"]
    images, annotations = [], []
    os.makedirs(os.path.join(folder, split))
    for index in tqdm(range(count), desc=f"drawing {split} images", disable=None, leave=False):
        pixels, objects = draw_scene(settings["seed"], SPLITS.index(split), index, size, settings.get("level", "mild"))
        file_name = f"{index + 1:06d}.png"
        # Little compression: noise does not compress, and reading is what training waits for.
        Image.fromarray(pixels).save(os.path.join(folder, split, file_name), compress_level=1)
        images.append({"id": index + 1, "file_name": file_name, "width": pixels.shape[1], "height": pixels.shape[0]})
        annotations += [_annotation(index + 1, class_index, mask) for class_index, mask in objects]
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    categories = [{"id": k + 1, "name": name, "supercategory": "shape"} for k, name in enumerate(CLASS_NAMES)]
    os.makedirs(os.path.join(folder, "annotations"), exist_ok=True)
    content = {"info": {"description": "generated by d2_balanced", **settings}, "licenses": [],
               "images": images, "annotations": annotations, "categories": categories}
    _write_json(annotation_file(folder, split), content)


def _annotation(image_id, class_index, mask):
    return {"id": 0, "image_id": image_id, "category_id": class_index + 1, "bbox": box_of(mask), "iscrowd": 0,
            "area": int(mask.sum()), "segmentation": trace(mask)}


def _write_json(path, content):
    with open(path, "w", newline="\n") as f:
        json.dump(content, f, separators=(",", ":"))
        f.write("\n")


@command("python -m d2_balanced.data.generated")
def main(args=None):
    """The command; returns the exit status."""
    settings = vars(argument_parser().parse_args(args))
    output = settings.pop("output") or generated_folder()
    with usage(f"--output {output}", OSError, error=OutputError):
        written = generate(output, **settings)
    counts = f"{settings['train_images']} training and {settings['val_images']} validation images"
    print(f"{output}: {counts} {'written' if written else 'already there, nothing to do'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
