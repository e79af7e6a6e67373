"""Which image and video files a command is given: files, folders, patterns."""

from __future__ import annotations

import glob
import os
from typing import Iterable, List

from ..utils.errors import DataError
from .video import VIDEO_ENDINGS

__all__ = ["ENDINGS", "find_images"]

ENDINGS = (".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


def find_images(words: Iterable[str], option: str = "--input") -> List[str]:
    """The image files that the words name, each once, in their order; those of a folder or pattern sorted by name.

    Args:
        option: what the words were given to, for errors.
        words: a file, whatever its name ends in; a folder, whose image files are taken (not those of its folders); or a
            pattern such as ``photos/**/*.jpg``. The last two take files that end as in ``ENDINGS``, a pattern also
            those that end as in ``VIDEO_ENDINGS``.

    Raises ``DataError`` for a word that names nothing, or a folder or pattern without images.
    """
    found: List[str] = []
    for word in words:
        found += _of_word(word, option)
    by_place = {}
    for path in found:
        by_place.setdefault(os.path.abspath(path), path)
    return list(by_place.values())


def _of_word(word: str, option: str) -> List[str]:
    if os.path.isfile(word):
        return [word]
    if os.path.isdir(word):
        endings = ENDINGS
        candidates = [os.path.join(word, name) for name in os.listdir(word) if not name.startswith(".")]
    else:
        endings = ENDINGS + VIDEO_ENDINGS
        candidates = glob.glob(word, recursive=True)
        if not candidates:
            raise DataError(f"{option} {word!r}: there is no such file or folder, and no file fits it as a pattern.")
    # A link to nothing is a file that cannot be read, and told as such.
    paths = sorted(path for path in candidates if not os.path.isdir(path) and path.lower().endswith(endings))
    if not paths:
        below = f" Those of the folders in it: {option} '{os.path.join(word, '**', '*')}'" if os.path.isdir(word) else ""
        raise DataError(f"{option} {word!r} has no images: none of its files ends in {', '.join(endings)}.{below}")
    return paths
