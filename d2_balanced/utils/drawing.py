"""Boxes, masks and names on an image, with Pillow alone (detectron2's Visualizer needs OpenCV)."""

import colorsys

import numpy as np
from PIL import Image, ImageDraw

from .fonts import pillow_font

__all__ = ["class_color", "contact_sheet", "draw_objects", "side_by_side"]

_MARGIN = 4
_BACKGROUND = (32, 32, 32)


def class_color(class_index):
    """An (R, G, B) of its own for every class index: hues by the golden ratio, so that neighbours differ."""
    hue, value = (0.33 + 0.618034 * class_index) % 1.0, 1.0 if class_index % 2 == 0 else 0.8
    return tuple(int(255 * channel) for channel in colorsys.hsv_to_rgb(hue, 0.85, value))


def draw_objects(image, objects, scale=1.0):
    """A copy of a Pillow image, enlarged by ``scale``, with the objects on it.

    Args:
        image: RGB, W x H pixels.
        objects: list of ``{"box": xyxy in pixels of the image, "class_index", "label", "mask": (H, W) bool or absent,
            "crowd": bool or absent, "color": (R, G, B) or absent}``; crowds are drawn in grey, others in the colour
            of their class. An empty label is left out. Drawn in this order.
    """
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    canvas = _with_masks(image, objects).resize(size, Image.BILINEAR)
    draw = ImageDraw.Draw(canvas)
    for item in objects:
        x1, y1, x2, y2 = (scale * value for value in item["box"])
        color = _color(item)
        draw.rectangle([x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)], outline=color, width=2)
        if item["label"]:
            _label(draw, item["label"], (x1, y1), color, pillow_font(item["label"], 11), size)
    return canvas


def side_by_side(panels, titles):
    """Pillow images of equal height in a row, each with its title above."""
    strip = 20
    width = sum(panel.width for panel in panels) + _MARGIN * (len(panels) - 1)
    row = Image.new("RGB", (width, strip + max(panel.height for panel in panels)), _BACKGROUND)
    draw, left = ImageDraw.Draw(row), 0
    for panel, title in zip(panels, titles):
        draw.text((left + _MARGIN, 2), title, fill=(255, 255, 255), font=pillow_font(title, 13))
        row.paste(panel, (left, strip))
        left += panel.width + _MARGIN
    return row


def contact_sheet(pictures, columns=2, width=640):
    """One picture of all: ``columns`` side by side, each shrunk or enlarged to ``width`` pixels."""
    small = [p.resize((width, max(1, round(p.height * width / p.width))), Image.BILINEAR) for p in pictures]
    rows = [small[k : k + columns] for k in range(0, len(small), columns)]
    heights = [max(p.height for p in row) + _MARGIN for row in rows]
    sheet = Image.new("RGB", (columns * (width + _MARGIN), sum(heights)), _BACKGROUND)
    for number, row in enumerate(rows):
        for column, picture in enumerate(row):
            sheet.paste(picture, (column * (width + _MARGIN), sum(heights[:number])))
    return sheet


def _color(item):
    if "color" in item:
        return item["color"]
    return (150, 150, 150) if item.get("crowd") else class_color(item["class_index"])


def _with_masks(image, objects, opacity=0.45):
    pixels = np.asarray(image, dtype=np.float32).copy()
    for item in objects:
        mask = item.get("mask")
        if mask is not None:
            pixels[mask] = (1 - opacity) * pixels[mask] + opacity * np.asarray(_color(item), dtype=np.float32)
    return Image.fromarray(pixels.round().astype(np.uint8))


def _label(draw, text, corner, color, font, size):
    """A name on a box of its colour: above the object's box, or inside where there is no room above."""
    x1, y1, x2, y2 = draw.textbbox((0, 0), text, font=font)
    width, height = x2 - x1 + 4, y2 - y1 + 4
    x = min(max(corner[0], 0), max(size[0] - width, 0))
    y = corner[1] - height if corner[1] >= height else max(corner[1], 0)
    draw.rectangle([x, y, x + width, y + height], fill=color)
    bright = 0.3 * color[0] + 0.6 * color[1] + 0.1 * color[2] > 110
    draw.text((x + 2 - x1, y + 2 - y1), text, fill=(0, 0, 0) if bright else (255, 255, 255), font=font)
