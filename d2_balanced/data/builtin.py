"""The data sets this package registers by name, below ``$DETECTRON2_DATASETS`` (default ``datasets``).

Importing ``d2_balanced.data`` registers them; nothing is read, drawn or converted before a name is used.
"""

import os

from detectron2.data import DatasetCatalog, MetadataCatalog

from .coco_file import load_dicts
from .outlines import CLASS_NAMES
from .roots import datasets_root, generated_folder
from .voc import CLASS_NAMES as VOC_CLASS_NAMES
from .voc import VOC_SPLITS, ensure_voc_json, voc_image_root

__all__ = ["register_generated", "register_voc_coco", "register_crowdhuman", "register_all"]


def register_generated(root=None):
    """Registers ``generated_train`` and ``generated_val``; they are drawn when first used."""
    folder = generated_folder(root)
    for split in ("train", "val"):
        json_file, image_root = os.path.join(folder, "annotations", split + ".json"), os.path.join(folder, split)
        name = f"generated_{split}"
        loader = _generated_loader(name, folder, json_file, image_root)
        _register(name, loader, CLASS_NAMES, json_file=json_file, image_root=image_root)


def _generated_loader(name, folder, json_file, image_root):
    def load():
        from .generated import ensure  # not above: `python -m d2_balanced.data.generated` imports this package first

        ensure(folder)
        return load_dicts(json_file, image_root, name)

    return load


def register_voc_coco(root=None):
    """Registers the names of :data:`.voc.VOC_SPLITS`; their metadata gets ``json_file`` when they are first loaded."""
    for name in VOC_SPLITS:
        _register(name, _voc_loader(name, datasets_root() if root is None else root), VOC_CLASS_NAMES)


def _voc_loader(name, root):
    def load():
        json_file, image_root = ensure_voc_json(name, root), voc_image_root(root)
        metadata = MetadataCatalog.get(name)
        metadata.json_file, metadata.image_root = json_file, image_root
        return load_dicts(json_file, image_root, name)

    return load


def register_crowdhuman(root=None):
    """Registers ``crowdhuman_train`` and ``crowdhuman_val``; ``json_file`` is known when they are first loaded."""
    for name in ("crowdhuman_train", "crowdhuman_val"):
        loader = _crowdhuman_loader(name, datasets_root() if root is None else root)
        _register(name, loader, ["person"], evaluator_type="crowdhuman")


def _crowdhuman_loader(name, root):
    def load():
        from .crowdhuman import crowdhuman_image_root, ensure_crowdhuman_json  # not above: it is a program as well

        json_file, image_root = ensure_crowdhuman_json(name, root), crowdhuman_image_root(root)
        metadata = MetadataCatalog.get(name)
        metadata.json_file, metadata.image_root = json_file, image_root
        return load_dicts(json_file, image_root, name)

    return load


def _register(name, loader, class_names, **metadata):
    if name in DatasetCatalog:
        return
    DatasetCatalog.register(name, loader)
    MetadataCatalog.get(name).set(
        thing_classes=list(class_names), builds_files=True, read_by_d2_balanced=True,
        thing_dataset_id_to_contiguous_id={k + 1: k for k in range(len(class_names))},
        **{"evaluator_type": "coco", **metadata},
    )


def register_all(root=None):
    """Registers every name of this package that is not registered yet."""
    register_generated(root)
    register_voc_coco(root)
    register_crowdhuman(root)
