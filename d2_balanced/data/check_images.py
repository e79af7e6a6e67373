"""Checks of image files: there, readable, complete, of the size the annotations say, and meant as they are read."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..utils.errors import DataError
from .image_file import image_facts
from .image_names import Folder, advice_on_missing

__all__ = ["check_images", "DECODE_LIMIT", "HEADER_LIMIT"]

DECODE_LIMIT = 2000
"""Up to this many images are decoded by default (a few milliseconds each); of more only header and tail are read."""

HEADER_LIMIT = 20000
"""Of more images than this, that many evenly spaced ones are opened by default; whether all exist is always checked."""

_ENDS = {b"\xff\xd8": (b"\xff\xd9", 4096), b"\x89PNG": (b"IEND", 64)}
"""{how a JPEG or PNG starts: (what ends a complete one, in how many last bytes)}."""

_SAMPLE = 100  # images that are decoded at least, for what no header tells
_DARK = 1 << 14  # 16-bit images without a value from here on hold 14 bits or fewer


_TURNED = (
    "Images are turned as their EXIF orientation says, as browsers and annotation tools show them. Boxes that were "
    "drawn on the stored pixels need files without it (exiftool -Orientation= FILE)."
)


def check_images(table, report, image_root=None, mode="auto", own_reading=True):
    """Checks the image files of a table.

    Args:
        mode: "auto" (see the two limits above), "headers" (all of them), "decode" (all of them, completely), or "none".
        own_reading: whether training and evaluation read images with :mod:`.image_file`; otherwise with detectron2,
            which clips 16-bit grey at 255.
    """
    if mode not in ("auto", "headers", "decode", "none"):
        raise ValueError(f"check_images: mode must be auto, headers, decode or none, got {mode!r}")
    if mode == "none" or not table.paths:
        return
    if image_root is not None and not os.path.isdir(image_root):
        report.error(f"image folder {image_root} does not exist")
        return
    rows = _existing(table, report, image_root)
    decode = mode == "decode" or (mode == "auto" and len(rows) <= DECODE_LIMIT)
    if mode == "auto" and len(rows) > HEADER_LIMIT:
        rows = [rows[k] for k in np.linspace(0, len(rows) - 1, HEADER_LIMIT).astype(int)]
    report.summary["image_files"] = {"opened": len(rows), "decoded": len(rows) if decode else 0}
    sample = rows if decode else rows[:: max(1, len(rows) // _SAMPLE)] if mode == "auto" else []
    facts = _open(table, rows, set(sample), report)
    _check_orientation(table, facts, report)
    _check_bits(table, facts, report, own_reading)
    _check_alpha(table, facts, report)


def _existing(table, report, image_root):
    """Rows whose file exists, after reporting the others."""
    folder = Folder("")
    missing = [row for row, path in enumerate(table.paths) if not folder.has(path)]
    if missing:
        advice = "" if image_root is None else advice_on_missing(image_root, table.file_names[missing[0]])
        report.error(f"{len(missing)} image file(s) missing", table.image_places(missing), advice)
    gone = set(missing)
    return [row for row in range(len(table.paths)) if row not in gone]


def _open(table, rows, decoded, report):
    """{row: facts} of the files that can be read, after reporting the others and those of another size."""
    with ThreadPoolExecutor(8) as pool:  # reading and decoding release Python's lock
        found = dict(zip(rows, pool.map(lambda row: _look(table.paths[row], row in decoded), rows)))
    faults = [(row, fact) for row, fact in found.items() if isinstance(fact, str)]
    if faults:
        report.error(f"{len(faults)} image file(s) that cannot be read completely, or not as they are meant",
                     _with_places(table, faults), "Replace them, or take them out of the data with their annotations.")
    facts = {row: fact for row, fact in found.items() if not isinstance(fact, str)}
    other = [(row, _other_size(fact, table.sizes[row])) for row, fact in facts.items()]
    other = [(row, text) for row, text in other if text]
    if other:
        advice = _TURNED if any("turned" in text for _, text in other) else ""
        report.error(f"{len(other)} image file(s) of another size than annotated", _with_places(table, other), advice)
    return facts


def _with_places(table, rows_and_texts):
    return [f"{table.image_place(row)}: {text}" for row, text in rows_and_texts]


def _look(path, decode):
    """The facts of a file, or a text that says why it cannot be read."""
    try:
        facts = image_facts(path, decode or not _ends_well(path))
    except DataError as error:
        return f"it {error}"
    except Exception as error:  # Pillow raises many kinds: OSError, SyntaxError, ValueError, struct.error, ...
        return f"{type(error).__name__}: {error}"
    if facts.alpha is not None and facts.alpha[1] == 0:
        return "it is wholly transparent: a viewer shows nothing, training would get the colours beneath"
    return facts


def _other_size(facts, size):
    width, height = facts.size
    if not np.isfinite(size).all() or (width, height) == (size[0], size[1]):
        return ""
    turned = " (turned by EXIF orientation?)" if (height, width) == (size[0], size[1]) and facts.orientation > 4 else ""
    return f"the file is {width} x {height}, annotated are {size[0]:g} x {size[1]:g}{turned}"


def _check_orientation(table, facts, report):
    """Images whose orientation changes no size: the size of the others tells what their boxes are drawn on."""
    rows = [row for row, fact in facts.items()
            if fact.orientation in (2, 3, 4) or (fact.orientation in (5, 6, 7, 8) and fact.size[0] == fact.size[1])]
    if rows:
        report.warn(f"{len(rows)} image(s) are turned or mirrored as their EXIF orientation says",
                    table.image_places(rows), f"{_TURNED} Look at pictures whether the boxes lie on their objects.")


def _check_bits(table, facts, report, own_reading):
    rows = [row for row, fact in facts.items() if fact.is_16_bit]
    highest = [facts[row].highest for row in rows if facts[row].highest is not None]
    most = max(highest, default=_DARK)
    if not rows:
        return
    report.summary["images of 16-bit grey (65535 becomes 255)"] = len(rows)
    if not own_reading:
        report.error(f"{len(rows)} image(s) of 16-bit grey, which detectron2's DatasetMapper clips at 255",
                     table.image_places(rows), "Use d2_balanced.data.mapper.BalancedMapper as the mapper.")
    elif most < _DARK:
        bits = max(most, 1).bit_length()
        report.error(f"{len(rows)} image(s) of 16-bit grey hold no value above {most}", table.image_places(rows),
                     f"They look like {bits} bits in a 16-bit file, as many cameras write. 65535 is white, so they "
                     f"would be all but black: multiply their values by {2 ** (16 - bits)}, or save them with 8 bits.")


def _check_alpha(table, facts, report):
    rows = [row for row, fact in facts.items() if fact.alpha is not None and fact.alpha[0] < 255]
    if rows:
        report.warn(f"{len(rows)} image(s) have transparent pixels", table.image_places(rows),
                    "The colours beneath are trained on, which a viewer does not show; programs that cut objects out "
                    "leave anything there. Save the images on the background that is meant.")


def _ends_well(path):
    with open(path, "rb") as f:
        start = f.read(4)
        marker, length = next((end for begin, end in _ENDS.items() if start.startswith(begin)), (b"", 0))
        f.seek(0, os.SEEK_END)
        f.seek(max(f.tell() - length, 0))
        return marker in f.read()
