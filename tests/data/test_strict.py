"""``DATASETS.STRICT``, ``data.strict``, ``--strict``: every warning about data is an error."""

import contextlib
import logging
import os

import pytest
from data.drawn import draw, sound, write
from paths import ROOT
from PIL import Image

from d2_balanced.config import data_defaults, get_balanced_cfg
from d2_balanced.data import check
from d2_balanced.engine.build import check_data
from d2_balanced.engine.experiment import OwnData
from d2_balanced.engine.open import open_experiment
from d2_balanced.engine.run import load_experiment
from d2_balanced.train import argument_parser
from d2_balanced.utils.errors import DataError

QUICK = os.path.join(ROOT, "configs", "quick", "faster_rcnn_R_18_FPN")


@pytest.fixture
def data(tmp_path):
    """A training set with a warning (a box that is left out) and a sound one for validation."""
    folders = [tmp_path / name for name in ("train", "val")]
    for folder in folders:
        folder.mkdir()
        draw(folder)
    content = sound()
    content["annotations"][1].update(bbox=[30, 10, 0, 20], segmentation=[])
    train, val = write(folders[0], content, "train.json"), write(folders[1], sound(), "val.json")
    return OwnData(train, str(folders[0]), val, str(folders[1]))


def checked(suffix, data, *overrides):
    experiment = open_experiment(f"{QUICK}.{suffix}", overrides, data)
    experiment.use_own_data()
    check_data(experiment, [*experiment.train_datasets, *experiment.test_datasets])


@pytest.mark.parametrize("suffix, strict", [("yaml", ["DATASETS.STRICT", "True"]), ("py", ["data.strict=true"])])
def test_a_run_that_is_strict_does_not_start(data, suffix, strict):
    checked(suffix, data)
    with pytest.raises(DataError) as error:
        checked(suffix, data, *strict)
    said = str(error.value)
    for text in ("own_train", "annotation 2", "zero width or height", "left out", "Warnings are errors here"):
        assert text in said
    assert "own_val" not in said
    sound_data = data._replace(train_json=data.val_json)
    checked(suffix, sound_data, *strict)
    with pytest.raises(DataError, match="own_val(.|\n)*3 of 3 image.s. are images of training, too"):
        checked(suffix, sound_data._replace(train_images=data.val_images), *strict)


def test_the_command(data, capsys):
    words = ["--json", data.train_json, "--images", data.train_images]
    assert (check.main(words), check.main(words + ["--strict"])) == (0, 1)
    assert "zero width or height" in capsys.readouterr().out
    assert check.main(["--json", data.val_json, "--images", data.val_images, "--strict"]) == 0


def test_what_a_conversion_leaves_out_is_a_warning(data, tmp_path, capsys, caplog):
    folder = tmp_path / "yolo"
    for split in ("train", "val"):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        Image.new("RGB", (64, 48)).save(folder / "images" / split / "a.png")
        (folder / "labels" / split / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n" * (1 + (split == "train")))
    (folder / "data.yaml").write_text("names: [cat]\ntrain: images/train\nval: images/val\n")
    args = argument_parser().parse_args(["--config-file", QUICK + ".yaml", "--data", str(folder)])
    for overrides, refused in ([], False), (["DATASETS.STRICT", "True"], True):
        args.opts = overrides
        experiment = load_experiment(args)
        experiment.use_own_data()
        caplog.clear()
        with pytest.raises(DataError, match="Warnings are errors here") if refused else contextlib.nullcontext():
            check_data(experiment, [*experiment.train_datasets, *experiment.test_datasets])
        (warning,) = [record for record in caplog.records if "read once: 1" in record.message and "a.txt:2" in record.message]
        assert warning.levelno == logging.WARNING and warning.message.startswith("training: ")
    assert (check.main(["--data", str(folder)]), check.main(["--data", str(folder), "--strict"])) == (0, 1)
    assert "read once: 1" in capsys.readouterr().out


def test_nothing_is_strict_by_default():
    assert get_balanced_cfg().DATASETS.STRICT is data_defaults()["strict"] is False
