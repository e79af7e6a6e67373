"""Checks of image files: there, readable, complete, and of the size the annotations say."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

__all__ = ["check_images", "image_fault", "upright_size", "DECODE_LIMIT", "HEADER_LIMIT"]

DECODE_LIMIT = 2000
"""Up to this many images are decoded by default (a few milliseconds each); of more only header and tail are read."""

HEADER_LIMIT = 20000
"""Of more images than this, that many evenly spaced ones are opened by default; whether all exist is always checked."""

_ENDS = {"JPEG": (b"\xff\xd9", 4096), "PNG": (b"IEND", 64)}  # what ends a complete file, and in how many last bytes
_EXIF_ORIENTATION = 274
_EXIF_FORMATS = ("JPEG", "MPO", "TIFF", "WEBP")


def check_images(table, report, image_root=None, mode="auto"):
    """Checks the image files of a table.

    Args:
        mode: "auto" (see the two limits above), "headers" (all of them), "decode" (all of them, completely), or "none".
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
    _open(table, rows, decode, report)


def _existing(table, report, image_root):
    """Rows whose file exists, after reporting the others. One listing a folder is faster than one look-up a file."""
    listings, missing = {}, []
    for row, path in enumerate(table.paths):
        folder, name = os.path.split(path)
        if folder not in listings:
            listings[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        if name not in listings[folder]:
            missing.append(row)
    if missing:
        advice = _advice(table, missing, image_root)
        report.error(f"{len(missing)} image file(s) missing", _places(table, missing), advice)
    gone = set(missing)
    return [row for row in range(len(table.paths)) if row not in gone]


def _advice(table, missing, image_root):
    """Where the first missing file may be instead."""
    name = table.file_names[missing[0]]
    if image_root is None:
        return ""
    if os.path.basename(name) != name and os.path.isfile(os.path.join(image_root, os.path.basename(name))):
        return (f"{os.path.basename(name)} is in {image_root}, but the annotation file calls it {name}: "
                "give the folder that this path starts from.")
    return f"Looked for {os.path.join(image_root, name)}."


def _places(table, rows):
    return [table.image_place(row) if k < 10 else "" for k, row in enumerate(rows)]


def _open(table, rows, decode, report):
    def look(row):
        return image_fault(table.paths[row], table.sizes[row], decode)

    with ThreadPoolExecutor(8) as pool:  # reading and decoding release Python's lock
        faults = list(pool.map(look, rows))
    for kind, what in (("unreadable", "image file(s) that cannot be read completely"),
                       ("size", "image file(s) of another size than annotated")):
        found = [(row, fault[1]) for row, fault in zip(rows, faults) if fault and fault[0] == kind]
        if found:
            report.error(f"{len(found)} {what}", [f"{table.image_place(row)}: {text}" for row, text in found])


def image_fault(path, size, decode):
    """What is wrong with an image file: None, or (kind "unreadable" or "size", a text).

    Args:
        size: (width, height) in pixels as annotated; NaN is not compared.
        decode: read all of it; otherwise only a file that does not end as its format should is decoded.
    """
    try:
        with Image.open(path) as image:
            width, height = upright_size(image)
            if decode or not _ends_well(path, image.format):
                image.load()
    except Exception as error:  # Pillow raises many kinds: OSError, SyntaxError, ValueError, struct.error, ...
        return "unreadable", f"{type(error).__name__}: {error}"
    if np.isfinite(size).all() and (width, height) != (size[0], size[1]):
        turned = " (turned by EXIF orientation?)" if (height, width) == (size[0], size[1]) else ""
        return "size", f"the file is {width} x {height}, annotated are {size[0]:g} x {size[1]:g}{turned}"
    return None


def upright_size(image):
    """Width and height after the EXIF orientation, which detectron2 applies when it reads an image."""
    orientation = image.getexif().get(_EXIF_ORIENTATION, 1) if image.format in _EXIF_FORMATS else 1
    return image.size[::-1] if orientation in (5, 6, 7, 8) else image.size


def _ends_well(path, image_format):
    if image_format not in _ENDS:
        return True
    marker, length = _ENDS[image_format]
    with open(path, "rb") as f:
        f.seek(0, os.SEEK_END)
        f.seek(max(f.tell() - length, 0))
        return marker in f.read()
