"""The yaml and the lazy quick config are the same run: weights, momentum and data order, bit for bit."""

import pytest
from tiny_runs import checkpoint, data_arguments, differences, make_dataset, quick_config, train_net


@pytest.mark.parametrize("model", ["faster_rcnn", "mask_rcnn", "retinanet", "fcos"])
def test_both_twins_train_the_same(model, tmp_path, monkeypatch):
    dataset = make_dataset(tmp_path / "data")
    contents = []
    for suffix in ("yaml", "py"):
        folder = tmp_path / suffix
        words = ["--config-file", quick_config(model, suffix), *data_arguments(dataset), "--output-dir", folder]
        assert train_net(*words, stop_after=2, monkeypatch=monkeypatch) in (0, 143)
        contents.append(checkpoint(folder, "model_0000001.pth"))
    assert not differences(contents[0]["model"], contents[1]["model"])
    optimizers = [content["trainer"]["optimizer"]["state"] for content in contents]
    assert not differences(*optimizers) and len(optimizers[0]) > 40
