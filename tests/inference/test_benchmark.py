"""What a detector costs is measured beside plain detectron2 where that detects the same, and beside exported files."""

import functools
import json

import numpy as np
import pytest
import torch
from commands import refusal, status
from d2_balanced.inference import Predictor
from d2_balanced.inference.benchmark.command import main
from d2_balanced.inference.benchmark.measure import count_operations, summary
from d2_balanced.inference.benchmark.plain import plain_detectron2
from d2_balanced.inference.export.write import export_run
from d2_balanced.utils.interleave import peak_memory, time_interleaved
from random_runs import make_images, make_run


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return make_images(tmp_path_factory.mktemp("images"))


def predictor_of(folder, config, images):
    predictor = Predictor.from_run(make_run(folder, *config.split()))
    return predictor, [predictor.read(path) for path in images]


@pytest.mark.parametrize("config, heads", [
    ("quick/mask_rcnn_R_18_FPN", "StandardROIHeads"),
    ("quick/cascade_mask_rcnn_R_18_FPN", "CascadeROIHeads"),
    ("DynamicRCNN/dynamic_quick", "StandardROIHeads"),
    ("RGA_PRM/rga_quick", "StandardROIHeads"),
    ("quick/retinanet_R_18_FPN", ""),
])  # fmt: skip
def test_plain_detectron2_has_its_own_classes_and_finds_the_same_to_the_bit(tmp_path, images, config, heads):
    predictor, inputs = predictor_of(tmp_path, config, images)
    plain, note = plain_detectron2(predictor.model, inputs[:1])
    assert not note and type(getattr(plain, "roi_heads", "")).__name__ == (heads or "str")
    layers = [part for part in plain.modules() if next(part.parameters(), None) is not None]
    assert not [part for part in layers if type(part).__module__.startswith("d2_balanced")]
    with torch.no_grad():
        for each in inputs:
            one, other = predictor.model([each])[0]["instances"], plain([each])[0]["instances"]
            assert len(one) and torch.equal(one.pred_boxes.tensor, other.pred_boxes.tensor)
            assert torch.equal(one.scores, other.scores)
            assert not one.has("pred_masks") or torch.equal(one.pred_masks, other.pred_masks)


@pytest.mark.parametrize("config, told", [
    ("quick/faster_rcnn_R_18_FPN MODEL.BALANCED.NMS.NAME SoftNMS", "SoftNMS"),
    ("RGA_PRM/prm_quick", "2 parallel branches"),
    ("R3CNN/r3_quick", "3 loops"),
    ("IoUUniformRCNN/iou_uniform_quick_efo", "an IoU branch"),
    ("R3CNN/mask_scoring_quick", "its masks"),
    ("LibraRCNN/libra_quick_pyramid", "backbone is of this package"),
])  # fmt: skip
def test_a_detector_without_a_counterpart_says_why(tmp_path, images, config, told):
    predictor, inputs = predictor_of(tmp_path, config, images[:1])
    plain, note = plain_detectron2(predictor.model, inputs)
    assert plain is None and told in note


def test_the_command_prints_a_table_and_writes_json(tmp_path, images, capsys):
    run = make_run(tmp_path / "run", "quick/faster_rcnn_R_18_FPN")
    path = export_run(run, "torchscript", images=images[:1]).path
    words = ["--run", run, "--exported", path, "--rounds", 2, "--no-memory"]
    assert status(main, *words, "--images", *images[:2]) == 0
    told = capsys.readouterr().out
    assert "2 image(s), 2 rounds" in told and "model_final.ts" in told and "Without plain" not in told
    with open(tmp_path / "run" / "benchmark.json", encoding="utf-8") as file:
        found = json.load(file)
    assert list(found["variants"]) == ["detector", "detectron2", path] and found["images"] == 2
    detector = found["variants"]["detector"]
    assert detector["ratio"] == 1 and 0 < detector["p50_ms"] <= detector["p95_ms"]
    assert detector["gflops"] > 0 and detector["parameters"] == found["variants"]["detectron2"]["parameters"]
    assert "peak_bytes" not in detector and "parameters" not in found["variants"][path]


def test_misuse_is_refused(tmp_path, images):
    run = make_run(tmp_path / "run", "quick/faster_rcnn_R_18_FPN")
    assert "no exported file" in refusal(main, "--run", run, "--exported", "no.onnx", "--images", images[0])
    assert "There is no run" in refusal(main, "--run", tmp_path / "nowhere", "--images", images[0])
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "a.json"
    assert "Cannot write" in refusal(main, "--run", run, "--images", images[0], "--output", place)


def test_percentiles_rates_and_ratios():
    found = summary([0.01, 0.02, 0.03], [0.01, 0.01, 0.01])
    assert (found["p50_ms"], found["images_per_s"], found["ratio"]) == pytest.approx((20, 50, 2))
    assert found["p95_ms"] == pytest.approx(29) and found["ratio_quartiles"] == pytest.approx([1, 3])


def test_operations_of_a_convolution_are_its_multiply_adds():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 5, 3, padding=1, bias=False)

        def forward(self, inputs):
            return self.conv(inputs[0]["image"][None])

    inputs = [{"image": torch.zeros(3, 8, size)} for size in (10, 20)]
    assert count_operations(Model(), inputs) == pytest.approx(3 * 5 * 9 * 8 * 15 / 1e9)


def test_variants_take_turns_and_are_timed_apart():
    now, order = [0.0], []

    def variant(name, seconds):
        order.append(name)
        now[0] += seconds

    variants = {name: functools.partial(variant, name, k) for k, name in enumerate("abc", start=1)}
    seconds = time_interleaved(variants, 2, warmup=1, clock=lambda: now[0])
    assert seconds == {"a": [1, 1], "b": [2, 2], "c": [3, 3]} and "".join(order) == "abcbcacab"


def test_memory_is_of_the_process_itself_and_a_failure_is_told():
    held = np.ones(40_000_000)  # 320 MB, which a process that is started now must not count as its own
    few, many = (functools.partial(np.ones, size) for size in (10, 40_000_000))
    peaks = peak_memory({"few": few, "many": many})
    assert peaks["few"] < 250e6 and peaks["many"] - peaks["few"] > 300e6 and len(held)
    with pytest.raises(RuntimeError, match="'wrong'"):
        peak_memory({"wrong": functools.partial(np.ones, "no size")})
