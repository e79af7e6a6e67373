"""Files that are written whole or not at all; a full disk is told with the file and the space."""

import contextlib
import errno
import io
import os
import shutil

from .errors import OutputError

__all__ = ["atomic_write", "disk_full", "remove_unfinished"]

_SUFFIX = ".unfinished"
_FULL = {
    getattr(errno, "EDQUOT", errno.ENOSPC): "your quota on this disk is used up",  # a system may have no quotas
    errno.ENOSPC: "the disk is full",
    errno.EFBIG: "the file would be larger than is allowed here (ulimit -f)",
}


@contextlib.contextmanager
def atomic_write(path, mode="wb", size=0):
    """Open a file that takes the name ``path`` only when the block ends well; until then an old one stays as it is.

    A process killed inside the block leaves ``.<name>.unfinished`` beside it.

    Args:
        mode: "wb" or "w" (UTF-8).
        size: bytes that will be written, if that is known, for the error.

    Raises:
        OutputError: the disk has no room for the file, see :func:`disk_full`, or it cannot be made or take its name.
    """
    folder, name = os.path.split(os.path.abspath(path))
    unfinished = os.path.join(folder, f".{name}{_SUFFIX}")
    written = None
    try:
        written = _File(unfinished, "w")
        with _buffered(written, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a power cut could leave the new name with the data still to come
        os.replace(unfinished, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.remove(unfinished)
        # What fills the file may hide the system's error: torch.save ends in an error of its own.
        reason = disk_full(path, (written and written.failure) or error, size) or _no_place(path, unfinished, error)
        if reason is not None:
            raise reason from error
        raise
    _sync_folder(folder)


def _no_place(path, unfinished, error):
    """The ``OutputError`` for an ``error`` of opening or moving the file ``unfinished``; None for any other error."""
    if not isinstance(error, OSError) or error.filename != unfinished:
        return None
    return OutputError(f"{path} could not be written: {error.strerror or error}.")


def disk_full(path, error, size=0):
    """The ``OutputError`` for an ``error`` that says that ``path`` found no room; None for any other error.

    Args:
        path: the file that was being written; what was written of it is gone already.
        size: bytes that it needs; 0: unknown.
    """
    if not isinstance(error, OSError) or error.errno not in _FULL:
        return None
    free = shutil.disk_usage(os.path.dirname(os.path.abspath(path))).free
    room = f"{_megabytes(free)} MB are free"
    if size:
        room = f"it needs about {_megabytes(size)} MB, and {room}"
        if size > free:
            room += f": {_megabytes(size - free)} MB are missing"
    return OutputError(f"{path} could not be written: {_FULL[error.errno]} ({error.strerror}); {room}.")


def remove_unfinished(folder):
    """Delete what killed processes left in ``folder``; no error where it does not exist."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith(".") and name.endswith(_SUFFIX):
                os.remove(os.path.join(folder, name))


class _File(io.FileIO):
    """Remembers the system's error of a write."""

    failure = None

    def write(self, data):
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise


def _buffered(file, mode):
    buffered = io.BufferedWriter(file)
    return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding="utf-8")


def _megabytes(size):
    return f"{size / 2**20:,.1f}"


def _sync_folder(folder):
    with contextlib.suppress(OSError):  # not every file system, nor Windows, can do it
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
