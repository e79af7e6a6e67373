"""Several detectors evaluated as one: joint NMS of their detections, from the command line and piece by piece."""

import json
import os

import pytest
import torch
from detectron2.layers import batched_nms
from detectron2.structures import Boxes, Instances
from tiny_runs import TINY, data_arguments, make_dataset, quick_config, train_net
from torch import nn

from d2_balanced.engine.ensemble import Ensemble
from d2_balanced.modeling.suppression import IoUGuidedNMS, NMS, SoftNMS, VarianceVoting
from d2_balanced.utils.errors import Refusal

LOW = ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"]


class Fixed(nn.Module):
    """A detector that always finds the same."""

    def __init__(self, boxes, scores, classes, masks=False):
        super().__init__()
        self.found = Instances((20, 30), pred_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)))
        self.found.scores, self.found.pred_classes = torch.tensor(scores), torch.tensor(classes, dtype=torch.int64)
        if masks:
            self.found.pred_masks = torch.rand(len(boxes), 20, 30) > 0.5

    def forward(self, inputs):
        return [{"instances": self.found} for _ in inputs]


def test_what_two_find_is_there_once_with_the_better_score_and_its_mask():
    one = Fixed([[0.0, 0, 10, 8], [20.0, 0, 30, 10]], [0.6, 0.5], [0, 0], masks=True)
    two = Fixed([[0.0, 1, 10, 9], [0.0, 1, 10, 9]], [0.9, 0.7], [0, 1], masks=True)
    for image in Ensemble([one, two], NMS(), 0.5, 10)([{}, {}]):
        found = image["instances"]
        assert found.scores.tolist() == pytest.approx([0.9, 0.7, 0.5]) and found.pred_classes.tolist() == [0, 1, 0]
        assert found.pred_boxes.tensor.tolist() == [[0, 1, 10, 9], [0, 1, 10, 9], [20, 0, 30, 10]]
        assert torch.equal(found.pred_masks, torch.stack([two.found.pred_masks[0], *two.found.pred_masks[1:], one.found.pred_masks[1]]))
    assert len(Ensemble([one, two], NMS(), 0.5, 2)([{}])[0]["instances"]) == 2


def test_what_only_one_detector_tells_is_left_out_and_nothing_stays_nothing():
    one, two = Fixed([[0.0, 0, 10, 8]], [0.6], [0], masks=True), Fixed([[0.0, 0, 10, 8]], [0.4], [1])
    assert not Ensemble([one, two], NMS(), 0.5, 10)([{}])[0]["instances"].has("pred_masks")
    nothing = Fixed([], [], [])
    assert len(Ensemble([nothing, nothing], SoftNMS(), 0.5, 10)([{}])[0]["instances"]) == 0


def test_fusion_knows_which_detector_a_box_is_of():
    pytest.importorskip("ensemble_boxes")
    from d2_balanced.modeling.suppression import WeightedBoxesFusion

    one, two = Fixed([[0.0, 0, 10, 8]], [0.6], [0]), Fixed([[0.0, 1, 10, 9], [20.0, 0, 30, 10]], [0.9, 0.5], [0, 0])
    found = Ensemble([one, two], WeightedBoxesFusion(), 0.5, 10)([{}])[0]["instances"]
    assert found.scores.tolist() == pytest.approx([0.75, 0.25])  # two agree; one of two is alone


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["the last finds nothing", "the first finds nothing"])
def test_fusion_counts_a_detector_that_finds_nothing(order):
    pytest.importorskip("ensemble_boxes")
    from d2_balanced.modeling.suppression import WeightedBoxesFusion

    pair = Fixed([[0.0, 0, 10, 8]], [0.6], [0]), Fixed([], [], [])
    models = [pair[i] for i in order]
    assert Ensemble(models, WeightedBoxesFusion(), 0.5, 10)([{}])[0]["instances"].scores.tolist() == pytest.approx([0.3])
    weights = [[3.0, 1.0][i] for i in order]
    found = Ensemble(models, WeightedBoxesFusion(weights=weights), 0.5, 10)([{}])[0]["instances"]
    assert found.scores.tolist() == pytest.approx([0.6 * 3 / 4])
    with pytest.raises(Refusal, match=r"weights=\[1.0, 2.0, 3.0\].*NMS.WEIGHTS.*2 detectors.*give 2, or none"):
        Ensemble(models, WeightedBoxesFusion(weights=[1.0, 2.0, 3.0]), 0.5, 10)


@pytest.mark.parametrize("nms, factor", [(NMS(), 1.0), (SoftNMS("linear"), 0.4)], ids=["NMS", "SoftNMS"])
def test_scores_of_masks_change_as_those_of_their_boxes(nms, factor):
    """They rank the masks, so that one of a box whose score has decayed is to come later, too."""
    one, two = (Fixed([[0.0, y, 10, y + 8]], [score], [0], masks=True) for y, score in ((0, 0.9), (2, 0.8)))
    one.found.mask_scores, two.found.mask_scores = torch.tensor([0.45]), torch.tensor([0.6])
    found = Ensemble([one, two], nms, 0.7 if factor == 1 else 0.5, 10)([{}])[0]["instances"]  # IoU 0.6
    assert found.scores.tolist() == pytest.approx([0.9, 0.8 * factor])
    assert found.mask_scores.tolist() == pytest.approx([0.45, 0.6 * factor])


@pytest.mark.parametrize("nms", [IoUGuidedNMS(), VarianceVoting(), nn.Identity()], ids=["IoU", "variance", "foreign"])
def test_a_suppression_by_more_than_boxes_and_scores_is_refused(nms):
    with pytest.raises(Refusal, match="--ensemble.*MODEL.BALANCED.NMS"):
        Ensemble([Fixed([], [], [])], nms, 0.5, 10)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of two iterations, and the words that evaluate with their data."""
    folder = tmp_path_factory.mktemp("runs")
    data = data_arguments(make_dataset(folder / "train"), make_dataset(folder / "val", images=3, seed=1))
    words = ["--config-file", quick_config("faster_rcnn"), *data]
    for seed in (1, 2):
        assert train_net("--output-dir", folder / str(seed), *words, *TINY, "SEED", seed, "SOLVER.MAX_ITER", 2, *LOW) == 0
    return folder, words


def evaluated(folder, name, words, seed, *options, overrides=()):
    """The detections of an evaluation, ``{image: (boxes XYWH, scores, categories)}``, the best first."""
    weights = ["MODEL.WEIGHTS", folder / str(seed) / "model_final.pth"]
    assert train_net("--eval-only", "--output-dir", folder / name, *options, *words, *TINY, *LOW, *weights, *overrides) == 0
    with open(os.path.join(folder, name, "inference", "own_val", "coco_instances_results.json")) as file:
        found = json.load(file)
    images = {image: [f for f in found if f["image_id"] == image] for image in {f["image_id"] for f in found}}
    return {image: sorted(f, key=lambda each: -each["score"]) for image, f in images.items()}


def test_from_the_command_line_it_is_the_nms_of_both_detectors_detections(runs):
    folder, words = runs
    loose = ["MODEL.ROI_HEADS.NMS_THRESH_TEST", "0.05"]  # of the evaluated detector and of what is mixed
    first = evaluated(folder, "alone1", words, 1, overrides=loose)
    second = evaluated(folder, "alone2", words, 2)  # as its own config says
    assert evaluated(folder, "twice", words, 1, "--ensemble", folder / "1", overrides=loose) == first
    mixed = evaluated(folder, "mixed", words, 1, "--ensemble", folder / "2" / "model_final.pth", overrides=loose)
    removed = 0
    for image in first:
        every = first[image] + second.get(image, [])
        boxes = torch.tensor([f["bbox"] for f in every])
        boxes[:, 2:] += boxes[:, :2]
        scores, classes = (torch.tensor([f[name] for f in every]) for name in ("score", "category_id"))
        kept = batched_nms(boxes, scores, classes, 0.05)[:100]
        assert [f["score"] for f in mixed[image]] == pytest.approx(scores[kept].tolist())
        removed += len(every) - len(kept)
    assert removed > 0


def test_what_cannot_be_joined_is_told(runs, capsys):
    folder, words = runs
    weights = ["MODEL.WEIGHTS", folder / "1" / "model_final.pth"]
    assert train_net("--ensemble", folder / "2", "--output-dir", folder / "x", *words, *TINY) == 2
    assert "--ensemble is for an evaluation" in capsys.readouterr().err
    assert train_net("--eval-only", "--ensemble", folder / "3", "--output-dir", folder / "x", *words, *TINY, *weights) == 2
    assert "3" in capsys.readouterr().err


def test_the_evaluation_of_a_run_is_not_replaced_by_that_of_an_ensemble(runs, capsys):
    folder, words = runs
    weights = ["MODEL.WEIGHTS", folder / "1" / "model_final.pth"]
    assert train_net("--eval-only", "--ensemble", folder / "2", "--output-dir", folder / "1", *words, *TINY, *weights) == 2
    assert "whose own evaluation would be replaced" in capsys.readouterr().err
