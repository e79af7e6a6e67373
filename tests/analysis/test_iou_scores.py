"""Figures 7 and 8 of IoU-Uniform R-CNN: numbers against a scalar reference, candidates against the detector's own."""

import json
import os

import numpy as np
import pytest
import torch
from commands import refusal
from d2_balanced.analysis import iou_scores
from d2_balanced.analysis.scored_boxes import Found, find, objects_of
from d2_balanced.analysis.nms_recall import MATCHING_IOUS, NmsRecall
from d2_balanced.analysis.predicted_iou import agreement, pearson, reliability, spearman
from d2_balanced.analysis.ranking import mean_and_sd, measure
from d2_balanced.config import load_yaml
from detectron2.modeling import build_model
from detectron2.structures import BoxMode
from paths import ROOT
from PIL import Image
from reference import ranking
from tiny_runs import TINY, make_dataset, quick_config

CONFIGS = os.path.join(ROOT, "projects", "IoUUniformRCNN", "configs")
QUICK, CASCADE = (os.path.join(CONFIGS, f"iou_uniform_quick{kind}.yaml") for kind in ("", "_cascade"))
BUCKETS = ["MODEL.BALANCED.BOX_CODER.NAME", "Buckets", "MODEL.BALANCED.BOX_LOSS.NAME", "BucketLoss"]
SETTINGS = [*TINY, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.4", "MODEL.ROI_HEADS.NUM_CLASSES", "2"]
SETTINGS += ["MODEL.DEVICE", "cpu"]


def random_images(generator, objects=(9, 0, 11), candidates=100):
    """[(boxes, classes, gt boxes, gt classes)] as nested lists, with candidates around the objects."""
    images = []
    for num in objects:
        corner = torch.randint(0, 60, (num + 4, 2), generator=generator).float()
        real = torch.cat([corner, corner + torch.randint(12, 40, corner.shape, generator=generator)], dim=1)
        near = real[torch.randint(len(real), (candidates,), generator=generator)]
        boxes = near + 2 * torch.randn(candidates, 4, generator=generator)
        classes = torch.randint(2, (candidates + num,), generator=generator)
        images.append((boxes.tolist(), classes[num:].tolist(), real[:num].tolist(), classes[:num].tolist()))
    return images


def test_recall_is_that_of_the_scalar_reference():
    generator = torch.Generator().manual_seed(1)
    images = random_images(generator)
    keys = [{name: torch.rand(100, generator=generator) for name in ("a", "b")} for _ in images]
    counted, unlimited = NmsRecall(nms_thresh=0.5, topk=6), NmsRecall(nms_thresh=0.5, topk=-1)
    for (boxes, classes, gt_boxes, gt_classes), image_keys in zip(images, keys):
        found = Found(torch.tensor(boxes), torch.tensor(classes), image_keys, torch.zeros(0, 4), {})
        for each in (counted, unlimited):
            each.add(found, torch.tensor(gt_boxes).reshape(-1, 4), torch.tensor(gt_classes, dtype=torch.long))
    assert unlimited.summary(True) == unlimited.summary(False) == counted.summary(False) != counted.summary(True)
    for limited, topk in ((False, None), (True, 6)):
        summary = counted.summary(limited)
        for name in ("a", "b"):
            values = [each[name].tolist() for each in keys]
            expected = ranking.recall(images, values, 0.5, MATCHING_IOUS, topk)
            kept = [len(ranking.kept(*image[:2], each, 0.5)[:topk]) for image, each in zip(images, values)]
            assert summary[name]["recall"] == pytest.approx(expected)
            assert summary[name]["mean"] == pytest.approx(sum(expected) / 10)
            assert summary[name]["boxes_per_image"] == pytest.approx(sum(kept) / 3)
            assert expected[0] > expected[5] > 0
    assert counted.objects == 20 and counted.images == 3


def test_recall_without_candidates_and_without_objects():
    nothing = Found(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), {"a": torch.zeros(0)}, torch.zeros(0, 4), {})
    counted = NmsRecall(0.5, 100)
    counted.add(nothing, torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    assert np.isnan(counted.summary(True)["a"]["recall"]).all()
    counted.add(nothing, torch.tensor([[0.0, 0, 9, 9]]), torch.tensor([1]))
    assert counted.summary(False)["a"] == {"recall": [0] * 10, "mean": 0, "boxes_per_image": 0}


def test_correlations_are_those_of_the_scalar_reference():
    rng = np.random.default_rng(0)
    x = rng.random(50).round(1)  # with ties
    y = (x + 0.3 * rng.random(50)) ** 3
    assert pearson(x, y) == pytest.approx(ranking.pearson(x.tolist(), y.tolist()))
    expected = ranking.pearson(ranking.ranks(x.tolist()), ranking.ranks(y.tolist()))
    assert spearman(x, y) == pytest.approx(expected) and expected != pytest.approx(pearson(x, y), abs=1e-3)
    assert spearman([1, 2, 3], [1, 10, 11]) == pytest.approx(1) and pearson([1, 2], [5, 3]) == pytest.approx(-1)
    for x, y in (([], []), ([1.0], [2.0]), ([1, 1], [1, 2]), ([1, 2], [3, 3])):
        assert np.isnan(pearson(x, y)) and np.isnan(spearman(x, y))


@pytest.mark.parametrize("bins", [1, 7, 10])
def test_reliability_is_that_of_the_scalar_reference(bins):
    rng = np.random.default_rng(bins)
    predicted = np.concatenate([0.3 + 0.6 * rng.random(60), [0.0, 1.0, 1.2, -0.1]])
    true = rng.random(64)
    table = reliability(predicted, true, bins)
    expected = ranking.reliability(predicted.tolist(), true.tolist(), bins)
    for k, (row, (count, mean_predicted, mean_true)) in enumerate(zip(table, expected)):
        assert (row["low"], row["high"]) == pytest.approx((k / bins, (k + 1) / bins))
        assert row["count"] == count
        assert row["predicted"] == pytest.approx(mean_predicted) and row["true"] == pytest.approx(mean_true)
        assert row["gap"] == (pytest.approx(mean_predicted - mean_true) if count else None)
    assert len(table) == bins and sum(row["count"] for row in table) == 64
    with pytest.raises(ValueError, match="bins must be 1 or more, got 0"):
        reliability(predicted, true, 0)


def test_agreement_correlates_boxes_above_the_least_iou_only():
    true, predicted = np.array([0.1, 0.5, 0.6, 0.7, 0.9]), np.array([0.9, 0.0, 0.5, 0.8, 0.7])
    result = agreement(predicted, true)
    assert (result["boxes"], result["boxes_all"]) == (3, 5)
    assert result["pearson"] == pytest.approx(ranking.pearson(predicted[2:].tolist(), true[2:].tolist()))
    assert result["pearson_all"] == pytest.approx(ranking.pearson(predicted.tolist(), true.tolist()))
    assert result["spearman"] == pytest.approx(0.5)
    assert result["mean_error"] == pytest.approx(-0.2 / 3) and result["mean_absolute_error"] == pytest.approx(0.4 / 3)
    assert np.isnan(agreement(predicted, true, min_iou=0.95)["mean_error"])


def test_mean_and_deviation_over_checkpoints():
    values = [{"a": [1.0, 2], "b": {"c": None, "d": float("nan")}}, {"a": [3.0, 2], "b": {"c": 1, "d": 1.0}}]
    nothing = {"mean": None, "sd": None}
    deviation = pytest.approx(2**0.5)
    expected = {"a": [{"mean": 2, "sd": deviation}, {"mean": 2, "sd": 0}], "b": {"c": nothing, "d": nothing}}
    assert mean_and_sd(values) == expected
    assert mean_and_sd([{"a": 5}]) == {"a": {"mean": 5, "sd": None}}


def detector(config, *settings):
    """A tiny detector whose outputs differ from proposal to proposal: each has mean 0 and deviation 1 over an image's."""
    torch.manual_seed(3)
    model = build_model(load_yaml(config, [*SETTINGS, *map(str, settings)])).eval()

    def spread(layer, inputs, output):
        layer.weight.div_(output.std(dim=0)[:, None])
        layer.bias.sub_(output.mean(dim=0)).div_(output.std(dim=0))
        return layer.forward(*inputs)

    linear = {name: m for name, m in model.roi_heads.named_modules() if isinstance(m, torch.nn.Linear)}
    hooks = [layer.register_forward_hook(spread) for name, layer in linear.items() if "_head" not in name]
    with torch.no_grad():
        model([image_input(9)])
    for hook in hooks:
        hook.remove()
    return model


def image_input(seed=0):
    pixels = torch.randint(0, 256, (3, 48, 64), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return {"image": pixels, "height": 48, "width": 64}


@pytest.mark.parametrize("config, key, settings", [
    (QUICK, "class score x IoU, with EFO", []),
    (QUICK, "class score x IoU, without EFO", ["MODEL.BALANCED.IOU_BRANCH.EFO", False]),
    (QUICK, "IoU, with EFO", ["MODEL.BALANCED.IOU_BRANCH.CLS_POWER", 0.0]),
    (QUICK, "class score", ["MODEL.BALANCED.IOU_BRANCH.IOU_POWER", 0.0]),
    (CASCADE, "class score x IoU, with EFO", []),
    (quick_config("faster_rcnn"), "class score x confidence of the sides", BUCKETS),
    (quick_config("faster_rcnn"), "class score", ["MODEL.ROI_HEADS.NAME", "BalancedROIHeads"]),
])  # fmt: skip
def test_what_nms_keeps_is_what_the_detector_finds(config, key, settings):
    model = detector(config, *settings)
    inputs = [image_input(0), image_input(1)]
    with torch.no_grad():
        detections = model.inference(inputs, do_postprocess=False)
    assert sum(map(len, detections)) > 3
    for found, expected in zip(find(model, inputs), detections):
        counted = NmsRecall(0.5, 100)
        counted.add(found, torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
        assert counted.summary(True)[key]["boxes_per_image"] == len(expected)
        objects = expected.pred_boxes.tensor, expected.pred_classes
        counted.add(found, *objects)
        assert counted.summary(True)[key]["recall"] == [1.0] * 10
        assert set(expected.scores.tolist()) <= set(found.keys[key].tolist())


def test_ious_are_predicted_from_the_proposals_and_from_the_refined_boxes():
    model = detector(QUICK)
    heads, inputs = model.roi_heads, [image_input()]
    (found,) = find(model, inputs)
    with torch.no_grad():
        images = model.preprocess_image(inputs)
        features = model.backbone(images.tensor)
        (proposals,), _ = model.proposal_generator(images, features, None)
        maps = [features[f] for f in heads.box_in_features]
        scores = heads.box_candidates(features, [proposals]).scores[0][:, :-1]
        chosen = [k for k in range(len(proposals)) if scores[k].max() > 0.4]
        assert 0 < len(chosen) == len(found.refined)

        def predicted(boxes):
            x = heads.iou_branch.iou_head(heads.box_pooler(maps, [type(proposals.proposal_boxes)(boxes[None])]))
            return heads.iou_branch.iou_predictor[0](x).sigmoid().item()

        for row, k in enumerate(chosen):
            proposal = proposals.proposal_boxes.tensor[k]
            assert found.ious["without EFO"][row].item() == pytest.approx(predicted(proposal), abs=1e-5)
            assert found.ious["with EFO"][row].item() == pytest.approx(predicted(found.refined[row]), abs=1e-5)
    assert (found.ious["with EFO"] - found.ious["without EFO"]).abs().max() > 1e-3


def test_objects_are_scaled_to_the_networks_input_and_crowds_are_none():
    def annotation(box, category, crowd=0):
        return {"bbox": box, "bbox_mode": BoxMode.XYWH_ABS, "category_id": category, "iscrowd": crowd}

    record = {"height": 50, "width": 100, "annotations": [annotation([10, 20, 30, 10], 1)]}
    record["annotations"].append(annotation([0, 0, 50, 50], 0, crowd=1))
    boxes, classes = objects_of(record, (100, 150))
    assert boxes.tolist() == [[15, 40, 60, 60]] and classes.tolist() == [1]
    boxes, classes = objects_of({**record, "annotations": []}, (100, 150))
    assert boxes.shape == (0, 4) and classes.shape == (0,)


def test_images_without_objects_are_measured():
    record = {"height": 48, "width": 64, "annotations": []}
    scores = measure(detector(QUICK), lambda record: image_input(), [record, record])
    summary = scores.summary()
    assert summary["images"] == 2 and summary["objects"] == 0 and (scores.true == 0).all() and len(scores.true) > 0
    assert np.isnan(summary["predicted_iou"]["with EFO"]["pearson"])
    assert sum(row["count"] for row in summary["predicted_iou"]["with EFO"]["reliability"]) == len(scores.true)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path, images = make_dataset(tmp_path_factory.mktemp("data"), images=3)
    return ["--val-json", path, "--val-images", images]


def saved(model, path):
    torch.save({"model": model.state_dict()}, path)
    return str(path)


def dark_share(path):
    pixels = np.asarray(Image.open(path).convert("L"))
    assert pixels.shape[0] > 300
    return (pixels < 200).mean()


def test_the_command_on_two_checkpoints(data, tmp_path, capsys):
    model = detector(QUICK)
    weights = [saved(model, tmp_path / "1.pth")]
    with torch.no_grad():
        model.roi_heads.iou_branch.iou_predictor[0].weight.neg_()
    weights.append(saved(model, tmp_path / "2.pth"))
    arguments = ["--config-file", QUICK, "--weights", *weights, *data, "--output", str(tmp_path / "out")]
    summaries = iou_scores.main([*arguments, "--min-iou", "0.1", *SETTINGS])
    content = json.loads((tmp_path / "out" / "iou_scores.json").read_text())
    assert [each["weights"] for each in content["checkpoints"]] == weights
    values = [each["predicted_iou"]["with EFO"]["pearson"] for each in summaries]
    assert [each["predicted_iou"]["with EFO"]["pearson"] for each in content["checkpoints"]] == values
    assert content["mean_and_sd"]["predicted_iou"]["with EFO"]["pearson"]["mean"] == pytest.approx(sum(values) / 2)
    assert values[0] != values[1] and summaries[0]["images"] == 3
    assert len(summaries[0]["recall_after_nms"]) == len(content["checkpoints"][1]["recall_of_detections"]) == 5
    printed = capsys.readouterr().out
    assert "class score x IoU, with EFO" in printed and "pearson" in printed and "+-" in printed
    for name in ("recall_by_nms_key.png", "predicted_iou.png"):
        assert str(tmp_path / "out" / name) in printed and dark_share(tmp_path / "out" / name) > 0.005


def test_the_command_without_an_iou_branch(data, tmp_path, capsys):
    config = quick_config("faster_rcnn")
    heads = ["MODEL.ROI_HEADS.NAME", "StandardROIHeads"]  # detectron2's: replaced by equal ones
    weights = saved(detector(config, *heads), tmp_path / "1.pth")
    arguments = ["--config-file", config, "--weights", weights, *data, "--images", "2", "--output", str(tmp_path)]
    (summary,) = iou_scores.main([*arguments, *SETTINGS, *heads])
    assert set(summary["recall_after_nms"]) == {"class score"} and summary["predicted_iou"] == {}
    assert summary["images"] == 2 and "No IoU predictor" in capsys.readouterr().out
    assert dark_share(tmp_path / "recall_by_nms_key.png") > 0.005 and not (tmp_path / "predicted_iou.png").exists()


@pytest.mark.parametrize("arguments, message", [
    (["--config-file", quick_config("retinanet")], "has no candidates to rank"),
    (["--config-file", QUICK, "--images", "0"], "--images: has to be 1 or more, not 0"),
])  # fmt: skip
def test_what_cannot_be_measured_is_refused(arguments, message, data, tmp_path):
    cfg = load_yaml(arguments[1], SETTINGS + ["MODEL.RETINANET.NUM_CLASSES", "2"])
    weights = saved(build_model(cfg), tmp_path / "weights.pth")
    assert message in refusal(iou_scores.main, *arguments, "--weights", weights, *data, "--output", tmp_path, *SETTINGS)
