"""Files that an annotation file calls otherwise: found, or the advice names the file that is there."""

import unicodedata

import pytest
from data.drawn import draw, sound, write
from detectron2.data import DatasetCatalog

from d2_balanced.data.check_dataset import check_dataset
from d2_balanced.data.coco_paths import register_by_path

NAME = "Capture décran 1.png"


@pytest.fixture
def folder(tmp_path):
    draw(tmp_path)
    (tmp_path / "8.jpg").rename(tmp_path / "8.png")
    return tmp_path


def report_of(folder, file_name, there):
    """Of a data set whose second image is called ``file_name`` in the annotations, and is ``there`` in the folder."""
    (folder / there).parent.mkdir(parents=True, exist_ok=True)
    (folder / "8.png").rename(folder / there)
    content = sound()
    content["images"][1]["file_name"] = file_name
    return check_dataset(write(folder, content), str(folder), 2)


@pytest.mark.parametrize(
    "file_name, there",
    [
        ("images\\8.png", "images/8.png"),
        ("a\\b\\8.png", "a/b/8.png"),
        ("images%5C8.png", "images/8.png"),
        ("Capture%20d%C3%A9cran%201.png", NAME),
        ("images\\Capture%20d%C3%A9cran%201.png", f"images/{NAME}"),
        (unicodedata.normalize("NFD", NAME), NAME),
        (NAME, unicodedata.normalize("NFD", NAME)),
        ("Capture%20de%CC%81cran%201.png", NAME),
    ],
)
def test_the_same_name_spelled_otherwise_is_found(folder, file_name, there):
    report = report_of(folder, file_name, there)
    assert report.errors == [] and f"{file_name!r} is read from {there!r}" in report.warnings[0]
    name = register_by_path("spelled", str(folder / "a.json"), str(folder), replace=True).name
    assert DatasetCatalog.get(name)[1]["file_name"] == str(folder / there)


@pytest.mark.parametrize("file_name", ["100%.png", "a%20b.png", "a\\b.png", unicodedata.normalize("NFD", NAME)])
def test_a_name_that_is_there_as_it_is_written_is_taken_so(folder, file_name):
    report = report_of(folder, file_name, file_name)
    assert (report.errors, report.warnings) == ([], [])


@pytest.mark.parametrize(
    "file_name, there, advice",
    [
        (
            "..\\..\\label-studio\\media\\upload\\4\\8.png",
            "8.png",
            "8.png is in {}, but the annotation file calls it ..",
        ),
        ("train/8.png", "8.png", "8.png is in {}, but the annotation file calls it train/8.png"),
        ("https://example.org/8.png?x=1", "8.png", "Looked for"),
        ("8.png", "below/8.png", "below/8.png is in {}: give the folder {}/below"),
        ("8.PNG", "8.png", "There is 8.png"),
        ("8.jpeg", "8.png", "There is 8.png"),
        ("nothing.png", "8.png", "Looked for {}/nothing.png"),
    ],
)
def test_the_advice_names_the_file_that_is_there(folder, file_name, there, advice):
    (error,) = report_of(folder, file_name, there).errors
    assert "1 image file(s) missing: image 8" in error and advice.format(folder, folder) in error


def test_names_from_the_folder_above(tmp_path):
    (tmp_path / "train").mkdir()
    draw(tmp_path / "train")
    content = sound()
    for image in content["images"]:
        image["file_name"] = "train\\" + image["file_name"]
    (error,) = check_dataset(write(tmp_path, content), str(tmp_path / "train"), 2).errors
    assert f"7.jpg is in {tmp_path / 'train'}, but the annotation file calls it train\\7.jpg" in error
    content["images"][0]["file_name"] = "train/sub/7.jpg"
    (tmp_path / "train" / "sub").mkdir()
    (tmp_path / "train" / "7.jpg").rename(tmp_path / "train" / "sub" / "7.jpg")
    (error,) = check_dataset(write(tmp_path, content), str(tmp_path / "train"), 2).errors
    assert f"train/sub/7.jpg is in {tmp_path}: give that folder" in error


@pytest.mark.parametrize("file_name", ["", 5, None, "a\0b.png", "\ud800.png", ["8.png"]])
def test_names_that_no_file_can_have(folder, file_name):
    content = sound()
    content["images"][1]["file_name"] = file_name
    error = check_dataset(write(folder, content), str(folder), 2).errors[0]
    assert "images[1]" in error and error.encode("utf-8")
