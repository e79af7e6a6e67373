"""What a reader of a layout makes: images with their objects, and what was left out; and the COCO JSON of it."""

from __future__ import annotations

import functools
import os
from collections import Counter
from typing import Any, Dict, Iterator, List, Sequence, Tuple

from PIL import Image

from ...utils.errors import DataError
from ..check_boxes import tolerated
from ..image_file import image_facts
from ..json_cache import CONVERTED

__all__ = ["Left", "coco_content", "count_classes", "files_below", "image_record", "images_below", "is_image", "lines_of"]

_EXAMPLES = 3
_OBJECTS = "objects left out, "


class Left:
    """What was left out or read otherwise, by kind, with the first places."""

    def __init__(self):
        self._places: Dict[str, List[str]] = {}

    def add(self, kind: str, place: str) -> None:
        self._places.setdefault(kind, []).append(place)

    def add_object(self, fault: str, place: str) -> None:
        """An object that cannot be read; too many of them are an error."""
        self.add(_OBJECTS + fault, place)

    def refuse_many(self, folder: str, read: int, advice: str) -> None:
        """Raise ``DataError`` if more objects were left out, beside those that were read, than chance explains."""
        faults = {kind: places for kind, places in self._places.items() if kind.startswith(_OBJECTS)}
        number = sum(map(len, faults.values()))
        if number > tolerated(read + number):
            said = "; ".join(self._line(kind, places) for kind, places in faults.items())
            raise DataError(f"{folder}: {number} of {read + number} objects cannot be read; {said}. {advice}")

    def lines(self) -> List[str]:
        """One line a kind: how many, and the first places."""
        return [self._line(kind, places) for kind, places in self._places.items()]

    @staticmethod
    def _line(kind: str, places: Sequence[str]) -> str:
        return f"{kind}: {len(places)} ({', '.join(places[:_EXAMPLES])}{', ...' if len(places) > _EXAMPLES else ''})"


@functools.lru_cache(maxsize=None)
def _suffixes() -> Tuple[str, ...]:
    return tuple(Image.registered_extensions())  # imports all of Pillow's plugins: not for those who have COCO JSON


def is_image(name: str) -> bool:
    return name.lower().endswith(_suffixes())


def lines_of(path: str) -> List[str]:
    """The lines of a text file in UTF-8; ``DataError`` for another encoding, or one that cannot be read."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read().splitlines()
    except UnicodeDecodeError as error:
        hint = "UTF-16" if error.object[:2] in (b"\xff\xfe", b"\xfe\xff") else "Latin-1, or no text"
        raise DataError(f"{path} is not in UTF-8, but {hint}. Save it as UTF-8.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def files_below(folder: str) -> Iterator[str]:
    """Paths of the files in a folder and in the folders in it, those behind links too, but each folder once; hidden ones
    and converted annotations are passed over."""
    seen = set()
    for where, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        folders[:] = sorted(name for name in folders if real not in seen and name != CONVERTED and not name.startswith("."))
        if real not in seen:
            yield from (os.path.join(where, name) for name in sorted(names) if not name.startswith("."))
        seen.add(real)


def images_below(folder: str) -> List[str]:
    """Paths of the images in a folder and in the folders in it, in the order of their names."""
    return sorted(filter(is_image, files_below(folder)))


def image_record(path: str, root: str, annotations: Sequence[Dict[str, Any]] = ()) -> Dict[str, Any]:
    """An image as in COCO JSON, without its id, with its ``annotations``; ``DataError`` if it cannot be opened."""
    try:
        width, height = image_facts(path, decode=False).size
    except Exception as error:  # Pillow raises many kinds
        raise DataError(f"image file {path} cannot be read: {error}") from error
    name = os.path.relpath(path, root).replace(os.sep, "/")
    return {"file_name": name, "width": width, "height": height, "annotations": list(annotations)}


def coco_content(records: Sequence[Dict[str, Any]], classes: Sequence[str], notes: Sequence[str]) -> Dict[str, Any]:
    """COCO JSON of image records; ``category_id`` of their annotations counts ``classes`` from 1."""
    images, annotations = [], []
    for record in records:
        image = {"id": len(images) + 1, **{key: value for key, value in record.items() if key != "annotations"}}
        images.append(image)
        for each in record["annotations"]:
            annotations.append({"id": len(annotations) + 1, "image_id": image["id"], "iscrowd": 0, **each})
    return {
        "info": {"description": "converted by d2_balanced", "notes": list(notes)},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": k + 1, "name": str(name)} for k, name in enumerate(classes)],
    }


def count_classes(records: Sequence[Dict[str, Any]]) -> Tuple[int, Counter]:
    """How many objects there are, and how many of each category id."""
    by_class = Counter(each["category_id"] for record in records for each in record["annotations"])
    return sum(by_class.values()), by_class
