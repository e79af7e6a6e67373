"""Checkpoints that survive a kill, hold tensors and plain Python only, and say what does not fit. (Being filled.)"""

from detectron2.checkpoint import DetectionCheckpointer

__all__ = ["BalancedCheckpointer", "CheckpointError"]


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read, or that does not fit the model; the message says what to do."""


class BalancedCheckpointer(DetectionCheckpointer):
    """detectron2's checkpointer with atomic writes, safe reads and a fall-back.

    Args:
        model: the model, wrapped in DDP or not.
        save_dir: the output folder ("" never saves).
        save_to_disk: None saves in the main process only.
        max_to_keep: number of numbered checkpoints (``model_0000099.pth``) that stay; None keeps all.
        checkpointables: objects with ``state_dict``/``load_state_dict`` (optimizer, scheduler, scaler, trainer, hooks);
            their state must consist of tensors and plain Python (NumPy values are converted, others are a TypeError).
    """

    def __init__(self, model, save_dir="", *, save_to_disk=None, max_to_keep=None, **checkpointables):
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.max_to_keep = max_to_keep

    def check_before_training(self):
        """Fail now rather than hours later: the folder can be written to, and every state can be saved.

        Raises ``PermissionError`` (folder) or ``TypeError`` (naming the entry of the state).
        """

    def save(self, name, **extra):
        """Write ``<name>.pth`` at once or not at all, then ``last_checkpoint`` likewise (never for ``model_best*``)."""
        super().save(name, **extra)

    def resume_or_load(self, path, *, resume=True):
        """With ``resume``: the last checkpoint that can be read, model (which must fit) and all checkpointables.

        Otherwise, or if the folder has none: the weights of ``path`` ("" for none), those that fit; a summary of the
        others is logged, and it is an error if next to nothing fits. Returns what else is in the file, e.g. ``iteration``;
        an empty dict if nothing was loaded.
        """
        return super().resume_or_load(path, resume=resume)

    def load(self, path, checkpointables=None, strict=None):
        """Load one file. ``strict`` (default: if ``checkpointables`` is None) raises unless every parameter is in it.

        Use ``load(path, checkpointables=[], strict=True)`` for evaluation, ``load(path, checkpointables=[])`` to
        fine-tune.
        """
        return super().load(path, checkpointables)
