"""Checkpoints that survive a kill, hold tensors and plain Python only, and say what does not fit the model."""

import os
import re

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils import comm

from ..utils.atomic import atomic_write, remove_unfinished
from ..utils.errors import CheckpointError, OutputError
from ..utils.safe_load import to_plain
from .checkpoint_files import BEST, UnreadableCheckpointError, checkpoints_in, read_checkpoint
from .class_weights import match_weights
from .identity import ABOUT, classes_of
from .weights_fit import WeightsFit

__all__ = ["BalancedCheckpointer", "what_is_safe"]

_NUMBERED = re.compile(r"model_(\d+)\.pth")


class BalancedCheckpointer(DetectionCheckpointer):
    """detectron2's checkpointer with atomic writes, safe reads, and a fall-back to an older checkpoint.

    Args:
        model: the model, wrapped in DDP or not.
        save_dir: the output folder, a local path ("" never saves).
        save_to_disk: None saves in the main process only.
        max_to_keep: number of numbered checkpoints (``model_0000099.pth``) that stay; None keeps all.
        checkpointables: objects with ``state_dict`` and ``load_state_dict`` (trainer, optimizer, scheduler...); their
            state must consist of tensors and plain Python (NumPy values are converted).
        about: a :class:`~.identity.RunIdentity` that every file carries; ``None``: none.
    """

    def __init__(self, model, save_dir="", *, save_to_disk=None, max_to_keep=None, about=None, **checkpointables):
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        if max_to_keep is not None and max_to_keep < 1:
            raise ValueError(f"BalancedCheckpointer: max_to_keep must be at least 1 or None, got {max_to_keep}")
        self.max_to_keep = max_to_keep
        self.about = about
        self.resumed_from = ""

    def check_before_training(self):
        """Fail now rather than hours later if a state cannot be saved; delete what killed runs left unfinished.

        (Whether the folder can be written to is tried earlier still, by ``start.require_run_folder``.)

        Raises:
            TypeError: a state holds something that a checkpoint cannot; the message names it.
        """
        if self.save_dir and self.save_to_disk:
            remove_unfinished(self.save_dir)
            self._collect({})

    def save(self, name, **extra):
        """Write ``<name>.pth`` as a whole, then name it in ``last_checkpoint`` (never ``model_best``).

        Args:
            name: file name without its extension.
            extra: further entries of the file, e.g. ``iteration``.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info("Saving checkpoint to %s", path)
        data = self._collect(extra)
        os.makedirs(self.save_dir, exist_ok=True)
        try:
            with atomic_write(path, size=_bytes_in(data)) as file:
                torch.save(data, file)
        except OutputError as full:
            raise OutputError(f"{full} {what_is_safe(self.save_dir)}") from full
        self.tag_last_checkpoint(os.path.basename(path))
        self._remove_older_than_kept(os.path.basename(path))

    def tag_last_checkpoint(self, last_filename_basename):
        """Name the file that a resume starts from; never the best one, which is older than the last."""
        if not last_filename_basename.startswith(BEST):
            with atomic_write(os.path.join(self.save_dir, "last_checkpoint"), "w") as file:
                file.write(last_filename_basename)

    def has_checkpoint(self):
        """Whether ``save_dir`` has a file to resume from."""
        return bool(checkpoints_in(self.save_dir))

    def get_checkpoint_file(self):
        """The file that a resume tries first; "" if there is none."""
        return next(iter(checkpoints_in(self.save_dir)), "")

    def resume_or_load(self, path, *, resume=True, check=None):
        """With ``resume``: the newest checkpoint of ``save_dir`` that can be read, with all checkpointables.

        Otherwise, or if there is none: those weights of the file ``path`` that fit ("": none), see :meth:`load`.

        Args:
            check: called with the content of the checkpoint that is resumed from, before anything is loaded.

        Returns:
            dict: what else the file has, e.g. ``iteration``; empty if nothing was loaded.

        Raises:
            CheckpointError: no file can be read, or the one that can is not of this model.
        """
        files = comm.all_gather(checkpoints_in(self.save_dir))[0] if resume else []
        reasons = []
        for file in files:
            checkpoint, reason = self._try_to_read(file)
            if not reason:
                if check is not None:
                    check(checkpoint)
                self.resumed_from = os.path.splitext(os.path.basename(file))[0]
                return self.use(checkpoint, file, checkpointables=None, strict=True)
            self.logger.warning("%s; trying the checkpoint before it", reason)
            reasons.append(reason)
        if reasons:
            raise UnreadableCheckpointError(
                f"no checkpoint can be resumed from: {'; '.join(reasons)}. One that has weights can be the initial "
                "weights (MODEL.WEIGHTS, train.init_checkpoint) of a new run, without --resume and in a new folder."
            )
        if resume:
            self.logger.warning("There is no checkpoint in %r to resume from: the run starts anew.", self.save_dir)
        return self.load(path, checkpointables=[])

    def load(self, path, checkpointables=None, strict=None):
        """Load one file: a checkpoint, or a ``.pkl`` or ``.pth`` of a model zoo.

        Args:
            path: file name or URL; "" loads nothing.
            checkpointables: names of those to load beside the model; None for all that are in the file.
            strict: whether every parameter of the model must be in the file, in its shape; as a default, only if
                ``checkpointables`` is None. Evaluation wants True. Otherwise the rest keeps its initial value, with a
                summary in the log, and it is an error if next to nothing fits.

        Returns:
            dict: what else the file has.

        Raises:
            CheckpointError: there is no such file, it cannot be read, or it does not fit the model.
        """
        if not path:
            self.logger.info("No weights given: the model starts from its random initialisation.")
            return {}
        strict = checkpointables is None if strict is None else strict
        return self.use(read_checkpoint(path), path, checkpointables, strict)

    def _collect(self, extra):
        data = {"model": self.model.state_dict()}
        data.update({key: thing.state_dict() for key, thing in self.checkpointables.items()})
        data.update(extra)
        if self.about is not None:
            data[ABOUT] = self.about._asdict()
        return {key: to_plain(value, key) for key, value in data.items()}

    def use(self, checkpoint, path, checkpointables, strict):
        """Load what :func:`read_checkpoint` found in the file ``path``; the other arguments are those of :meth:`load`."""
        size = len(checkpoint["model"])
        if self.about is not None:
            match_weights(self.model, checkpoint["model"], classes_of(checkpoint), self.about.classes)
        incompatible = self._load_model(checkpoint)
        WeightsFit(self.model, incompatible, size, path).report(strict)
        for key in self.checkpointables if checkpointables is None else checkpointables:
            if key in checkpoint:
                self.checkpointables[key].load_state_dict(checkpoint.pop(key))
        self.logger.info("Loaded %s", path)
        return checkpoint

    def _try_to_read(self, file):
        """(content, "") if all processes can resume from ``file``; (None, the reason) in all of them otherwise."""
        checkpoint, reason = None, ""
        try:
            checkpoint = read_checkpoint(file)
        except CheckpointError as error:
            reason = str(error)
        lacking = [key for key in self.checkpointables if checkpoint and not isinstance(checkpoint.get(key), dict)]
        if lacking:
            reason = f"{file!r} has weights, but no training state ({', '.join(lacking)})"
        reasons = [r for r in comm.all_gather(reason) if r]
        return (None, reasons[0]) if reasons else (checkpoint, "")

    def _remove_older_than_kept(self, newest):
        """Delete numbered checkpoints of lower numbers than ``newest``'s, all but ``max_to_keep - 1`` of them."""
        match = _NUMBERED.fullmatch(newest)
        if self.max_to_keep is None or not match:
            return
        found = filter(None, map(_NUMBERED.fullmatch, os.listdir(self.save_dir)))
        older = sorted((int(m.group(1)), m.group()) for m in found if int(m.group(1)) < int(match.group(1)))
        for _, name in older[: len(older) - (self.max_to_keep - 1)]:
            os.remove(os.path.join(self.save_dir, name))


def what_is_safe(folder):
    """What a run that found no room on its disk goes on from, for the error."""
    last = next(iter(checkpoints_in(folder)), "")
    kept = f"{last} is whole: make room, and go on from it with --resume" if last else "There is no checkpoint yet"
    return f"Nothing half-written is left. {kept}."


def _bytes_in(value):
    """Bytes of the tensors in a checkpoint's content."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return sum(map(_bytes_in, items))
