"""The folders that hold the data sets which are registered by name."""

import os

__all__ = ["datasets_root", "generated_folder"]


def datasets_root():
    """The folder that holds all data sets: ``$DETECTRON2_DATASETS``, or ``datasets`` as in detectron2."""
    return os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))


def generated_folder(root=None):
    """Where ``generated_train`` and ``generated_val`` live."""
    return os.path.join(datasets_root() if root is None else root, "generated")
