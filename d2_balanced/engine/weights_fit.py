"""How well the weights of a file fit a model: a short report, and an error where going on would be a mistake."""

import logging

from ..utils.errors import CheckpointError

__all__ = ["WeightsFit"]

_LISTED = 6  # names per kind of misfit in a message
_ALMOST_NOTHING = 0.05


class WeightsFit:
    """What was and was not loaded.

    Args:
        model: after loading.
        incompatible: fvcore's result (``missing_keys``, ``unexpected_keys``, ``incorrect_shapes``).
        file_size: number of tensors in the file.
        path: of the file, for messages.
    """

    def __init__(self, model, incompatible, file_size, path):
        self.path, self.file_size = path, file_size
        restarted = _restarting_buffers(model)
        self.restarted = [name for name, _, _ in incompatible.incorrect_shapes if name in restarted]
        self.wrong_shape = [
            f"{name} (file {list(in_file)}, model {list(in_model)})"
            for name, in_file, in_model in incompatible.incorrect_shapes
            if name not in restarted
        ]
        self.unexpected = list(incompatible.unexpected_keys)
        not_loaded = _without_aliases(model, incompatible.missing_keys)
        misshapen = {name for name, _, _ in incompatible.incorrect_shapes}
        parameters = {name for name, _ in model.named_parameters()}
        self.missing = [name for name in not_loaded if name in parameters and name not in misshapen]
        self.missing_buffers = [name for name in not_loaded if name not in parameters and name not in misshapen]
        self.num_parameters = len(parameters)
        self.num_loaded = len(parameters) - len(parameters.intersection(not_loaded))

    def __str__(self):
        kinds = [
            ("in another shape", self.wrong_shape),
            ("of another number of processes or period (windows that start empty)", self.restarted),
            ("not in the file", self.missing),
            ("not in the file (buffers; they keep their initial value)", self.missing_buffers),
            ("in the file only", self.unexpected),
        ]
        lines = [f"{self.num_loaded} of the model's {self.num_parameters} parameter tensors come from {self.path!r}"]
        return "\n  ".join(lines + [f"{len(names)} {kind}: {_some(names)}" for kind, names in kinds if names])

    def report(self, strict):
        """Log what does not fit.

        Raises:
            CheckpointError: a parameter is missing or has another shape and ``strict``; or next to nothing was loaded.
        """
        if self.num_parameters and self.num_loaded < _ALMOST_NOTHING * self.num_parameters:
            raise CheckpointError(f"a checkpoint of another architecture: next to nothing fits this model.\n{self}")
        if strict and (self.missing or self.wrong_shape):
            raise CheckpointError(
                "a checkpoint of another architecture, number of classes or configuration. Use the config that it was "
                f"trained with; or, to fine-tune from it, give it as the initial weights, without --resume.\n{self}"
            )
        if self.missing or self.wrong_shape or self.missing_buffers or self.unexpected or self.restarted:
            logging.getLogger(__name__).warning("%s", self)


def _restarting_buffers(model):
    """Names of the buffers that may have another shape in a file, as their modules say in ``restarting_buffers``."""
    return {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        for name in getattr(module, "restarting_buffers", ())
    }


def _without_aliases(model, missing):
    """The names in ``missing`` whose tensor was not loaded under another name (a head that two modules share)."""
    tensors = model.state_dict(keep_vars=True)
    loaded = {id(tensors[name]) for name in tensors.keys() - set(missing)}
    return [name for name in missing if name not in tensors or id(tensors[name]) not in loaded]


def _some(names):
    more = f", and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
