"""Names in any script in pictures: a font that has them, one that is given, or the id and a note."""

import logging
import shutil

import numpy as np
import pytest
from matplotlib import get_data_path
from matplotlib.figure import Figure
from PIL import Image, features

from d2_balanced.utils import fonts
from d2_balanced.utils.drawing import draw_objects, side_by_side

DEJAVU = f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf"


@pytest.fixture
def only(monkeypatch):
    """``only(*paths, given="")``: the fonts that there are on this machine."""

    def patch(*paths, given=""):
        def list_fonts(named):
            return [*([named] if named else []), *paths]

        monkeypatch.setattr(fonts, "_fonts", list_fonts)
        monkeypatch.setenv(fonts.FONT, given)
        fonts._font_with.cache_clear()

    yield patch
    fonts._font_with.cache_clear()


def label_pixels(text):
    """What is drawn on a grey image as the name of an object."""
    item = {"box": [2, 40, 150, 60], "class_index": 0, "label": text}
    return np.asarray(draw_objects(Image.new("RGB", (160, 80), (90, 90, 90)), [item]))


def test_fonts_of_the_system_and_of_matplotlib_are_found():
    assert fonts.font_of("Балка Größe Ωμέγα") == DEJAVU
    assert fonts.font_of("\ue000\uf8ff\U000f0000") is None  # private characters that no font shares


def test_the_first_font_that_has_all_characters_is_taken(only, tmp_path):
    copied = str(tmp_path / "given.ttf")
    shutil.copy(DEJAVU, copied)
    (tmp_path / "broken.ttf").write_text("no font")
    only(str(tmp_path / "broken.ttf"), DEJAVU)
    assert fonts.font_of("Балка") == DEJAVU
    only(DEJAVU, given=copied)
    assert fonts.font_of("Балка") == copied and fonts.font_of("圆盘") is None
    only(given=str(tmp_path / "nowhere.ttf"))
    assert fonts.font_of("Балка") is None


def test_scripts_that_need_shaping_need_it(only, monkeypatch):
    only(DEJAVU)
    for has, expected in ((True, DEJAVU), (False, None)):
        monkeypatch.setattr(features, "check", lambda name, has=has: has)
        assert fonts.font_of("سيارة") == expected and fonts.font_of("Балка") == DEJAVU


def test_names_are_drawn_in_their_script(only):
    only(DEJAVU)
    drawn = [label_pixels(text) for text in ("Балка", "Балки", "Вилка")]
    assert not any(np.array_equal(a, b) for a, b in ((drawn[0], drawn[1]), (drawn[0], drawn[2])))  # no row of boxes
    title = np.asarray(side_by_side([Image.new("RGB", (200, 20))], ["Балка: 3"]))
    assert not np.array_equal(title, np.asarray(side_by_side([Image.new("RGB", (200, 20))], ["Булка: 3"])))


def test_names_that_no_font_has_are_ids_and_a_note_says_so(only, caplog):
    only(DEJAVU, given="/fonts/given.ttf")
    with caplog.at_level(logging.WARNING, logger="d2_balanced"):
        names = fonts.names_to_draw(["圆盘", "Балка", "bar"], ["id 1", "id 2", "id 3"])
    assert names == ["id 1", "Балка", "bar"]
    for text in ("1 class name(s)", "id 1 is 圆盘", "D2_BALANCED_FONT", "/fonts/given.ttf"):
        assert text in caplog.text
    caplog.clear()
    assert fonts.names_to_draw(["Балка"], ["id 2"]) == ["Балка"] and not caplog.text


def test_figures(only, tmp_path, recwarn):
    """No missing glyphs, and a $ in a name is no formula."""
    only(DEJAVU)
    figure = Figure()
    axes = figure.add_subplot(title="Балка")
    axes.set_xticks([0, 1], ["a$_b$c$", "$\\frac{"])
    axes.plot([0, 1], [1, 2], label="price in $ and $\\x$")
    axes.set_yscale("log")
    axes.legend()
    fonts.fit_figure(figure).savefig(tmp_path / "figure.png")
    assert not [w for w in recwarn if "Glyph" in str(w.message)]
    assert Image.open(tmp_path / "figure.png").width > 100
