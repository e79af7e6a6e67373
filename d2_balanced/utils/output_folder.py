"""Folders that a command writes to: made, and tried, before time is spent on what goes into them."""

import os
import re
import tempfile

from .errors import OutputError

__all__ = ["require_files", "require_writable"]

_FILES = re.compile(r"last_checkpoint|.+\.(csv|jsonl?|png|pth|txt|yaml)")


def require_writable(folder: str, chosen_by: str = "--output") -> None:
    """Make the folder, and raise ``OutputError`` if that or writing a file into it is not possible.

    ``chosen_by``: the options or keys with which the user chooses another one.
    """
    before, home, _ = os.path.join(os.path.abspath(folder), "").partition(f"{os.sep}~{os.sep}")
    if home and not os.path.exists(os.path.join(before, "~")):
        raise OutputError(
            f"The output folder {folder!r} would lie in a folder that is called ~. A shell takes ~ for your home only at the "
            f"start of a word: write --output-dir ~/... without =, or $HOME in place of ~."
        )
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(
            f"Cannot write to the output folder {folder!r}: {reason}. Choose another one with {chosen_by}."
        ) from error


def require_files(folder: str) -> None:
    """Raise ``OutputError`` where a folder, or a link to nowhere, has the name of a file that a run writes or adds to.

    A checkpoint that is a link to nowhere is passed over by whoever looks for checkpoints.
    """
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if _FILES.fullmatch(name) and os.path.isdir(path):
            raise OutputError(f"{path!r} is a folder, and a run writes a file of this name. Rename or delete it.")
        if name.endswith(".txt") and not os.path.exists(path):
            raise OutputError(f"{path!r} is a link to a file that is not there. Delete the link.")
