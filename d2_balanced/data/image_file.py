"""Opening an image: the one way for the check, for training, for evaluation and for pictures.

Ordinary images are read as detectron2 reads them, turned as their EXIF orientation says. Beyond that:

- 16-bit grey becomes 8-bit by one rule for all images: 0 stays 0, 65535 becomes 255, evenly between (rounded).
- Refused, because what they mean would have to be guessed: floating-point and 32-bit pixels, several pages or frames.
"""

from typing import NamedTuple, Optional

import numpy as np
from detectron2.data.detection_utils import _apply_exif_orientation, convert_PIL_to_numpy
from detectron2.utils.file_io import PathManager
from PIL import Image

from ..utils.errors import DataError

__all__ = ["IMAGE_FORMATS", "ImageFacts", "image_facts", "pixels_of", "read_image", "to_8_bit"]

IMAGE_FORMATS = ("BGR", "RGB", "L", "YUV-BT.601", "YCbCr", "HSV", "RGBA", "CMYK")
"""What an image can be read as: those of Pillow's modes that all images convert to and that have a list of channels."""

_ORIENTATION, _SUBFILE_TYPE, _REDUCED = 274, 254, 1  # tags of EXIF and TIFF
_WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")


def read_image(file_name, format=None):
    """An image file as an array (H, W, C), uint8 in the modes that models take.

    Args:
        format: as in detectron2: "RGB", "BGR", "L", ...; None leaves the channels as they are in the file.

    Raises:
        DataError: a file that is missing, damaged or refused; names it.
    """
    try:
        with PathManager.open(file_name, "rb") as f:
            image = Image.open(f)
            fault = _fault(image)
            if not fault:
                return _pixels(image, format)
    except Exception as error:  # Pillow raises many kinds: OSError, SyntaxError, ValueError, struct.error, ...
        raise DataError(f"image file {file_name} cannot be read: {type(error).__name__}: {error}") from error
    raise DataError(f"image file {file_name} {fault}")


def pixels_of(image, format=None):
    """An open Pillow image as :func:`read_image` gives its file; raises ``DataError`` for what is refused there."""
    fault = _fault(image)
    if fault:
        raise DataError(f"a {image.mode} image {fault}")
    return _pixels(image, format)


def _pixels(image, format):
    return convert_PIL_to_numpy(to_8_bit(_upright(image)), format)


def to_8_bit(image):
    """A Pillow image of 16-bit grey as one of 8 bits; others as they are."""
    if not _is_16_bit(image):
        return image
    values = np.asarray(image).astype(np.uint32).clip(0, 65535)
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))


class ImageFacts(NamedTuple):
    """What the check looks at in an image."""

    size: tuple  # (width, height) as it is read
    orientation: int  # of EXIF, 1 if it is read as it is stored
    is_16_bit: bool  # 16-bit grey
    highest: Optional[int]  # the largest value of 16-bit grey that was decoded, else None
    alpha: Optional[tuple]  # the lowest and the highest opacity of a decoded image that has one, else None


def image_facts(path, decode):
    """:class:`ImageFacts` of a file.

    Args:
        decode: read all of it, as training does; otherwise its header only, where that tells.

    Raises:
        DataError: an image that :func:`read_image` refuses (the message does not name the file). What Pillow raises.
    """
    with Image.open(path) as image:
        fault = _fault(image)
        if fault:
            raise DataError(fault)
        if image.format == "PNG" and (decode or _has_late_chunks(path)):
            image.load()  # what stands behind the pixels is known then
        orientation = _orientation(image)
        if not decode and not (image.format == "TIFF" and orientation != 1):
            turned = orientation in (5, 6, 7, 8)
            return ImageFacts(image.size[::-1] if turned else image.size, orientation, _is_16_bit(image), None, None)
        image.load()
        highest = int(np.asarray(image).max()) if _is_16_bit(image) else None
        has_alpha = image.mode in _WITH_ALPHA or "transparency" in image.info
        alpha = image.convert("RGBA").getchannel("A").getextrema() if has_alpha else None
        upright = _upright(image)
        convert_PIL_to_numpy(to_8_bit(upright), "RGB")
        return ImageFacts(upright.size, orientation, highest is not None, highest, alpha)


def _orientation(image):
    """EXIF's orientation; 1 (upright) where there is none, or damaged EXIF, of which detectron2 takes no notice."""
    try:
        return Image.Image.getexif(image).get(_ORIENTATION, 1)  # not the method of a PNG, which decodes it
    except Exception:  # of many kinds
        return 1


def _has_late_chunks(path):
    """Whether something stands behind a PNG's pixels that may hold an orientation."""
    with open(path, "rb") as f:
        f.seek(8)
        pixels = False
        while True:
            head = f.read(8)
            if len(head) < 8 or head[4:] == b"IEND":
                return False
            pixels = pixels or head[4:] == b"IDAT"
            if pixels and head[4:] in (b"eXIf", b"iTXt", b"tEXt", b"zTXt"):
                return True
            f.seek(int.from_bytes(head[:4], "big") + 4, 1)


def _upright(image):
    """The image as its EXIF orientation says. Pillow turns a TIFF when it loads it, and detectron2 would again."""
    if image.format == "TIFF":
        image.load()
        return image
    return _apply_exif_orientation(image)


def _is_16_bit(image):
    """Whether the values are 0 to 65535: some versions of Pillow open such files as 32-bit integers."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM", None))


def _fault(image):
    """Why an opened image is refused, or an empty text. Nothing but its header is read."""
    if image.mode in ("F", "I") and not _is_16_bit(image):
        kind = "floating-point" if image.mode == "F" else "32-bit or signed"
        return (f"has {kind} pixels, and nothing tells which value is black and which is white. "
                "Save it with 8 bits, or as 16-bit grey from 0 to 65535")
    pages = _pages(image)
    if pages > 1:
        return f"has {pages} pages or frames, of which only the first would be read. Save the annotated one by itself"
    return ""


def _pages(image):
    """Pages or frames of an image; previews that cameras (MPO) and TIFF writers add are none."""
    count = getattr(image, "n_frames", 1)
    if count == 1 or image.format == "MPO":
        return 1
    if image.format != "TIFF":
        return count
    pages = 0
    for number in range(count):
        image.seek(number)
        pages += not image.tag_v2.get(_SUBFILE_TYPE, 0) & _REDUCED
    image.seek(0)
    return pages
