"""One run at a time in an output folder: a lock of the operating system, with a note of who holds it."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import platform
import time
from typing import Iterator, Optional

from detectron2.utils import comm

from ..utils.command import command_line
from ..utils.errors import OutputError
from .distributed import raise_in_all
from .start import require_run_folder

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = ["LOCK", "hold_folder"]

LOCK = "run.lock"
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def hold_folder(folder: str) -> Iterator[None]:
    """Keep every other run and evaluation out of ``folder`` while the block runs. All processes call it.

    The main process holds a POSIX record lock (``fcntl``) on ``run.lock`` in it, which ends with the process, however
    that ends, and which data workers do not inherit. Network file systems pass it on to the server (NFS with lockd or
    NFS 4, Lustre mounted with ``flock``, GPFS, CephFS). Where there are no locks the note in the file counts alone: it
    is believed unless it names a process of this host that is gone.

    Raises ``OutputError`` if another process holds the folder, naming it, or if the folder cannot be written to.
    """
    require_run_folder(folder)
    held, error = None, None
    if comm.is_main_process():
        try:
            held = _take(os.path.join(folder, LOCK))
        except OutputError as refused:
            error = refused
    raise_in_all(error)
    try:
        yield
    finally:
        if held is not None:
            _release(held, os.path.join(folder, LOCK))


def _take(path: str) -> int:
    """The descriptor of the locked file, which has a note of this process; ``OutputError`` if it is another's."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:  # a folder, a link to nowhere
            raise OutputError(f"{path!r} cannot be opened: {error.strerror or error}. Delete it.") from error
        try:
            _lock(descriptor, path)
            if _is_still(descriptor, path):  # else its holder has deleted it between the two calls
                _write_note(descriptor)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, path: str) -> None:
    try:
        if fcntl is None:
            raise OSError(errno.ENOSYS, "no file locks on this system")
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    except OSError as error:
        note = _read_note(descriptor)
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise OutputError(_refusal(path, note)) from None
        if error.errno not in _NO_LOCKS:
            raise OutputError(f"{path!r} cannot be locked: {error.strerror or error}.") from error
        logger.warning("%s: this file system has no locks (%s); the note in it is relied on.", path, error.strerror)
    if note and not _is_gone(note):
        raise OutputError(f"{_refusal(path, note)} If that process is gone, delete {path!r}.")


def _is_still(descriptor: int, path: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    return False


def _release(descriptor: int, path: str) -> None:
    with contextlib.suppress(OSError):
        os.remove(path)  # while it is locked: whoever waits for it sees that it is gone, and makes a new one
    os.close(descriptor)


def _write_note(descriptor: int) -> None:
    note = {
        "host": platform.node(), "process": os.getpid(), "start": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": command_line(),
    }  # fmt: skip
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(note).encode(), 0)


def _read_note(descriptor: int) -> Optional[dict]:
    try:
        note = json.loads(os.pread(descriptor, 1 << 16, 0))
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) and {"host", "process", "start"} <= set(note) else None


def _is_gone(note: dict) -> bool:
    """Whether the process of the note is one of this host, and is no more."""
    if note["host"] != platform.node() or not isinstance(note["process"], int):
        return False
    try:
        os.kill(note["process"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _refusal(path: str, note: Optional[dict]) -> str:
    holder = "another process"
    if note:
        holder = f"process {note['process']} on {note['host']}, since {note['start']}"
    return (
        f"The output folder {os.path.dirname(path)!r} is in use by {holder}. Wait for it, or end it (kill -TERM: it "
        "saves a checkpoint first), or choose another folder with --output-dir."
    )
