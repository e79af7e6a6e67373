"""Files that are written whole or not at all."""

import contextlib
import os

__all__ = ["atomic_write", "remove_unfinished"]

_SUFFIX = ".unfinished"


@contextlib.contextmanager
def atomic_write(path, mode="wb"):
    """Open a file that takes the name ``path`` only when the block ends well; until then an old one stays as it is.

    A process killed inside the block leaves ``.<name>.unfinished`` beside it. ``mode`` is "wb" or "w" (UTF-8).
    """
    folder, name = os.path.split(os.path.abspath(path))
    unfinished = os.path.join(folder, f".{name}{_SUFFIX}")
    try:
        with open(unfinished, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a power cut could leave the new name with the data still to come
        os.replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(unfinished)
        raise
    _sync_folder(folder)


def remove_unfinished(folder):
    """Delete what killed processes left in ``folder``; no error where it does not exist."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith(".") and name.endswith(_SUFFIX):
                os.remove(os.path.join(folder, name))


def _sync_folder(folder):
    with contextlib.suppress(OSError):  # not every file system, nor Windows, can do it
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
