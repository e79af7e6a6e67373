"""Repeat factors: numbers by hand, detectron2's own, what a command and the loader tell of them."""

import json

import pytest
import torch
from detectron2.data.samplers import RepeatFactorTrainingSampler

from d2_balanced.data.check import main
from d2_balanced.data.loader import build_train_loader
from d2_balanced.data.repeat_factors import RepeatFactors


def image(*categories, crowd=()):
    annotations = [{"category_id": c, "iscrowd": 0} for c in categories]
    return {"annotations": annotations + [{"category_id": c, "iscrowd": 1} for c in crowd], "width": 9, "height": 9}


# Class 0 is in 4 of 4 images, class 1 in 1 of them (two objects), class 2 in 1 (beside class 1).
DATASET = [image(0), image(0, 0), image(0, crowd=[0]), image(0, 1, 1, 2)]


def test_by_hand():
    """At 0.5: sqrt(0.5 / 0.25) for the rare classes, so their image comes 1.414 times."""
    repeats, factor = RepeatFactors(DATASET, 0.5), 2**0.5
    assert repeats.of_images.tolist() == pytest.approx([1, 1, 1, factor])
    assert list(repeats.of_classes) == [1, 2, 0]
    assert repeats.of_classes[1] == pytest.approx((1, factor, 2, 2 * factor))
    assert repeats.of_classes[2] == pytest.approx((1, factor, 1, factor))
    assert repeats.of_classes[0] == pytest.approx((4, 1.0, 5, 4 + factor))
    assert torch.equal(repeats.of_images, RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(DATASET, 0.5))


def test_an_epoch_has_so_many_objects_on_average():
    loader = build_train_loader(dataset=DATASET, mapper=dict, total_batch_size=1, seed=1, repeat_threshold=0.5)
    stream, repeats = loader.batches.stream, loader.repeats
    epochs = 3000
    objects = [[a["category_id"] for a in each["annotations"] if not a["iscrowd"]] for each in DATASET]
    drawn = torch.cat([stream.epoch(e) for e in range(epochs)]).tolist()
    for category, share in repeats.of_classes.items():
        mean = sum(objects[i].count(category) for i in drawn) / epochs
        # The one fraction that is drawn has a variance of at most 1/4 an epoch; five standard errors.
        assert abs(mean - share.objects_an_epoch) < 5 * share.objects * 0.5 / epochs**0.5
    assert build_train_loader(dataset=DATASET, mapper=dict, total_batch_size=1, seed=1).repeats is None


def test_description():
    text = RepeatFactors(DATASET, 0.5).describe(["cell", "platelet"])
    assert text.splitlines()[0] == (
        "Repeat factors at a threshold of 0.5: an epoch of 4 images has 4.4 on average; 1 come more often than once, at "
        "most 1.41 times."
    )
    rows = [line.split() for line in text.splitlines()[3:]]
    assert rows == [["platelet", "1", "1.41", "2", "2.8"], ["2", "1", "1.41", "1", "1.4"], ["cell", "4", "1.00", "5", "5.4"]]
    many = RepeatFactors([image(*range(i + 1)) for i in range(40)], 0.5).describe()
    assert many.splitlines()[-1] == "and 10 more frequent classes" and len(many.splitlines()) == 34


def test_the_check_of_a_data_set_tells_them(tmp_path, capsys):
    annotations = [
        {"id": i + 1, "image_id": image, "category_id": category, "bbox": [1, 1, 4, 4], "area": 16, "iscrowd": crowd}
        for i, (image, category, crowd) in enumerate([(1, 7, 0), (2, 7, 0), (3, 7, 0), (3, 7, 1), (4, 7, 0), (4, 3, 0), (5, 7, 1)])
    ]
    images = [{"id": i, "file_name": f"{i}.png", "width": 9, "height": 9} for i in range(1, 7)]
    categories = [{"id": 3, "name": "platelet"}, {"id": 7, "name": "cell"}]
    path = tmp_path / "train.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    words = ["--json", str(path), "--images", str(tmp_path), "--files", "none"]
    main([*words, "--repeat-threshold", "0.5"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["platelet", "1", "1.41", "1", "1.4"] in lines and ["cell", "4", "1.00", "4", "4.4"] in lines  # images 1 to 4
    main(words)
    assert "Repeat factors" not in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*words, "--repeat-threshold", "1.5"])
