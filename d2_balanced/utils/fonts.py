"""Fonts for names in any script: one that has the characters is looked for; where none is, the names are shown as ids.

Looked at in this order: the file that the environment variable ``D2_BALANCED_FONT`` names, matplotlib's own DejaVu Sans
(Latin, Greek, Cyrillic, ...), and the fonts of the system.
"""

import functools
import logging
import os
import unicodedata

from PIL import ImageFont, features

__all__ = ["FONT", "fit_figure", "font_of", "names_to_draw", "pillow_font"]

FONT = "D2_BALANCED_FONT"

_SHAPED = ((0x0900, 0x0DFF), (0x0F00, 0x109F), (0x1780, 0x17FF))  # Indic scripts, Tibetan, Burmese, Khmer

logger = logging.getLogger(__name__)


def font_of(text):
    """Path of a font that has every character of ``text``; None if there is none, or none that can write it."""
    needed = frozenset(ord(character) for character in text if not character.isspace())
    if _is_shaped(needed) and not features.check("raqm"):  # letters would stand side by side, or in the wrong order
        return None
    return _font_with(needed)


@functools.lru_cache(maxsize=None)
def _font_with(needed):
    return next((path for path in _fonts(os.environ.get(FONT, "")) if needed <= _characters(path)), None)


def _fonts(given):
    from matplotlib import font_manager, get_data_path

    if given:
        yield given
    yield os.path.join(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    yield from sorted(font_manager.findSystemFonts())


@functools.lru_cache(maxsize=None)
def _characters(path):
    """The code points that a font has; none of a file that is no font, or has pictures in place of outlines."""
    from matplotlib.ft2font import FT2Font

    try:
        ImageFont.truetype(path, 11)
        return frozenset(FT2Font(path).get_charmap())
    except Exception as error:  # of many kinds, by the version of FreeType
        logger.debug("%s is no font that can be used: %s", path, error)
        return frozenset()


def _is_shaped(code_points):
    """Whether some of the letters change their form or place by their neighbours, or run from right to left."""
    return any(
        unicodedata.bidirectional(chr(c)) in ("R", "AL", "AN") or any(low <= c <= high for low, high in _SHAPED)
        for c in code_points
    )


def pillow_font(text, size):
    """A Pillow font for ``text`` of ``size`` pixels: Pillow's own for plain Latin, and where no other has it."""
    path = None if text.isascii() else font_of(text)
    if path:
        return ImageFont.truetype(path, size)
    try:
        return ImageFont.load_default(size)
    except TypeError:  # Pillow before 10.1: one size only
        return ImageFont.load_default()


def names_to_draw(names, stand_ins):
    """The names, with its stand-in (its id) for each that no font can write; a warning says which and what to do."""
    missing = [k for k, name in enumerate(names) if not name.isascii() and font_of(name) is None]
    if missing:
        logger.warning(
            "No font here has the characters of %d class name(s), which pictures show as ids: %s. Install one (Noto "
            "Sans CJK, for example), or name a font file with the environment variable %s%s.",
            len(missing), ", ".join(f"{stand_ins[k]} is {names[k]}" for k in missing[:20]), FONT,
            f" (it names {os.environ[FONT]!r}, which has them not)" if os.environ.get(FONT) else "",
        )  # fmt: skip
    return [stand_ins[k] if k in missing else name for k, name in enumerate(names)]


def fit_figure(figure):
    """Gives each text of a matplotlib figure a font that has its characters, and takes a $ in it for a $."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        shown = text.get_text()
        if "$" in shown and not shown.startswith("$\\mathdefault"):  # what matplotlib itself writes on logarithmic axes
            text.set_parse_math(False)
        path = None if shown.isascii() else font_of(shown)
        if path:
            text.set_fontproperties(FontProperties(fname=path, size=text.get_size()))
    return figure
