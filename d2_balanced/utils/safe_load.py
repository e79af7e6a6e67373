"""Reading weight files without running code that they may contain, and making state that can be read so."""

import collections
import pickle
import re

import numpy as np
import torch

__all__ = ["load_pickled_arrays", "to_plain", "why_unreadable"]


def _numpy_constructors():
    """The functions that pickles of arrays call, under the names that NumPy 1 and NumPy 2 give them."""
    functions = {
        "multiarray": [np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]],
        "numeric": [np.empty(1).__reduce_ex__(5)[0]],
    }
    return {
        (f"numpy.{core}.{module}", function.__name__): function
        for core in ("core", "_core")
        for module, those in functions.items()
        for function in those
    }


_ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): lambda text, encoding="latin1": text.encode("latin1"),  # bytes, in pickles of protocol 2
    **_numpy_constructors(),
}


class _ArrayUnpickler(pickle.Unpickler):
    """Knows NumPy arrays, built-in containers, strings and numbers; whatever else a file asks for is refused."""

    def find_class(self, module, name):
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        raise pickle.UnpicklingError(
            f"it asks for `{module}.{name}`; only NumPy arrays, containers, strings and numbers are read from a .pkl "
            "file, as anything else could run code"
        )


def load_pickled_arrays(file):
    """Content of a ``.pkl`` weight file (detectron2's or Detectron's model zoo; Python 2 or 3).

    Args:
        file: opened for reading bytes.

    Raises:
        pickle.UnpicklingError: the file asks for anything but NumPy arrays, containers, strings and numbers.
    """
    return _ArrayUnpickler(file, encoding="latin1").load()


def why_unreadable(error):
    """Why a file of weights could not be read, in words of our own: torch's advise to read it unsafely.

    Args:
        error: what :func:`load_pickled_arrays` or ``torch.load(weights_only=True)`` raised.
    """
    text = str(error)
    asked = re.search(r"(?:GLOBAL|class|function) ([\w.]+)", text) if "weights_only" in text else None
    if asked:
        return (
            f"it holds `{asked.group(1)}`; only tensors, containers, strings and numbers are read, as anything else could "
            "run code. Where it was written, save the weights alone: torch.save(model.state_dict(), FILE)"
        )
    if isinstance(error, pickle.UnpicklingError) and "weights_only" not in text:
        return text
    return "it is empty, damaged, or was not written by torch.save. Was it copied completely?"


def to_plain(value, where):
    """``value`` made of what ``torch.load(weights_only=True)`` reads: tensors, None, numbers, str, dict, list, tuple.

    NumPy arrays become tensors, NumPy numbers Python's, named tuples tuples, subclasses of dict (but OrderedDict)
    dicts.

    Args:
        value: e.g. a ``state_dict()``.
        where: its name, for the error.

    Raises:
        TypeError: anything else inside, naming the entry.
    """
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.from_numpy(value.copy())
    if isinstance(value, dict):
        return _plain_dict(value, where)
    if isinstance(value, (list, tuple)):
        items = [to_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if value is None:
        return None
    raise TypeError(
        f"{where} is a {type(value).__name__}, which a checkpoint cannot hold: state_dict() must be made of tensors, "
        "numbers, strings, None, dict, list and tuple"
    )


def _plain_dict(value, where):
    items = ((to_plain(key, f"a key of {where}"), to_plain(item, f"{where}[{key!r}]")) for key, item in value.items())
    if not isinstance(value, collections.OrderedDict):
        return dict(items)
    plain = collections.OrderedDict(items)
    if hasattr(value, "_metadata"):  # module versions, which load_state_dict looks at
        plain._metadata = to_plain(value._metadata, f"{where}._metadata")
    return plain
