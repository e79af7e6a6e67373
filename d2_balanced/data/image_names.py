"""Finding the files that an annotation file means, and saying where they are if it calls them something else."""

import os
import unicodedata
from urllib.parse import unquote

__all__ = ["Folder", "find_images", "advice_on_missing"]


class Folder:
    """A folder of images whose listings are read once: faster than one look-up a file, on network drives above all."""

    def __init__(self, root):
        self.root, self._listings = root, {}

    def names_in(self, path):
        """The names in a folder below the root (a set); empty if there is none."""
        path = os.path.join(self.root, path)
        if path not in self._listings:
            try:
                self._listings[path] = set(os.listdir(path or "."))
            except (OSError, ValueError):  # no folder; a path that no system knows
                self._listings[path] = set()
        return self._listings[path]

    def has(self, name):
        """Whether there is something of this name, a path from the root on."""
        folder, base = os.path.split(name)
        return base in self.names_in(folder)


def find_images(root, names):
    """The names as they are in the folder ``root``; one that is not there in any spelling stays as it is.

    Other spellings of the same name: back-slashes (Windows), %-encoding (URLs), and accents as a letter of their own or
    as a mark behind the letter (macOS).
    """
    folder = Folder(root)
    if not folder.names_in(""):
        return list(names)
    return [name if folder.has(name) else _find(folder, name) for name in names]


def _find(folder, name):
    return next((spelling for spelling in _spellings(name) if folder.has(spelling)), name)


def _spellings(name):
    """Other ways to write the same name, the closest first."""
    plain = [text.replace("\\", "/") if slashes else text for slashes in (0, 1) for text in (name, unquote(name))]
    forms = [unicodedata.normalize(form, text) for text in plain for form in ("NFC", "NFD")]
    return [text for text in dict.fromkeys(plain + forms) if text and "\0" not in text]


def advice_on_missing(root, name):
    """Where the file that an annotation file calls ``name`` may be: a text that names the file that is there."""
    folder, spellings = Folder(root), _spellings(name)
    bases = [os.path.basename(text) for text in spellings]
    for base in bases:
        if base in folder.names_in("") and base != name:
            return (f"{base} is in {root}, but the annotation file calls it {name}: "
                    "give the folder that this path starts from, or mend the names.")
    above = Folder(os.path.dirname(os.path.abspath(root)))
    if any(above.has(text) for text in spellings):
        return f"{name} is in {above.root}: give that folder."
    below = next((f for f in sorted(folder.names_in("")) for base in bases if folder.has(os.path.join(f, base))), None)
    if below:
        return f"{os.path.join(below, bases[-1])} is in {root}: give the folder {os.path.join(root, below)}."
    return f"Looked for {os.path.join(root, name)}." + _similar(folder, spellings)


def _similar(folder, spellings):
    """A file whose name differs in capitals or in its ending."""
    for text in spellings:
        where, base = os.path.split(text)
        stem = os.path.splitext(base)[0].lower()
        close = sorted(n for n in folder.names_in(where) if os.path.splitext(n)[0].lower() == stem)
        if close:
            return f" There is {os.path.join(where, close[0])}."
    return ""
