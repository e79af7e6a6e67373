"""Libra R-CNN as a project: quick configs from training to metrics, the plot of what is sampled, refused settings."""

import json
import os

import pytest
import torch
from d2_balanced.analysis import sampling_distribution
from d2_balanced.config import check_config, load_yaml
from d2_balanced.modeling.sampling import IoUBalancedSampler, RandomSampler
from detectron2.modeling import build_model
from detectron2.structures import Instances
from paths import ROOT
from tiny_runs import TINY, checkpoint, data_arguments, make_dataset, train_net

CONFIGS = os.path.join(ROOT, "projects", "LibraRCNN", "configs")


def config(name):
    return os.path.join(CONFIGS, name)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return make_dataset(folder / "train"), make_dataset(folder / "val", images=3, seed=1)


def run(name, datasets, folder, *overrides):
    """Train 3 iterations and evaluate; returns the metrics of the validation set."""
    words = ["--config-file", config(name), *data_arguments(*datasets), "--output-dir", folder]
    assert train_net(*words, *TINY, "SOLVER.MAX_ITER", 3, *overrides) == 0
    (metrics,) = folder.glob("inference/*/metrics.json")
    return json.loads(metrics.read_text())["metrics"]


@pytest.fixture(scope="module")
def whole(datasets, tmp_path_factory):
    """The folder of a finished run of ``libra_quick``, and its metrics."""
    folder = tmp_path_factory.mktemp("libra") / "whole"
    return folder, run("libra_quick.yaml", datasets, folder)


# --- quick configs ---------------------------------------------------------------------------------------------------


def test_all_of_libra_trains_and_evaluates(whole):
    folder, metrics = whole
    assert {"AP", "AP50", "AP75"} <= set(metrics["bbox"])
    saved = load_yaml(str(folder / "config.yaml"))
    model = build_model(saved)
    heads = model.roi_heads
    sampler = IoUBalancedSampler(num_bins=3, positives="instance_balanced")
    assert repr(heads.branches[0].sampler) == repr(sampler)
    assert repr(heads.box_predictor.box_loss).startswith("BalancedL1(alpha=0.5, gamma=1.5, beta=1.0")
    trained = checkpoint(folder)["model"]
    refinement = [name for name in trained if name.startswith("backbone.balance.refine.")]
    assert len(refinement) == 8  # theta, phi, g, out: weight and bias
    model.load_state_dict(trained)  # the names of what was trained are those of a model built anew


@pytest.mark.parametrize("part", ["sampling", "pyramid", "loss"])
def test_each_component_trains_and_evaluates_alone(part, datasets, tmp_path):
    assert "AP75" in run(f"libra_quick_{part}.yaml", datasets, tmp_path / part)["bbox"]


def test_libra_retinanet_trains_and_evaluates(datasets, tmp_path):
    assert "AP75" in run("libra_quick_retinanet.yaml", datasets, tmp_path / "retinanet")["bbox"]


def test_libra_rpn_reports_the_recall_at_100_300_and_1000_proposals(datasets, tmp_path):
    metrics = run("libra_quick_rpn.yaml", datasets, tmp_path / "rpn")
    assert {"AR@100", "AR@300", "AR@1000"} <= set(metrics["box_proposals"])


# --- what is sampled -------------------------------------------------------------------------------------------------


def labeled(ious, label=1):
    image = Instances((10, 10), matched_ious=torch.tensor(ious), matched_idxs=torch.zeros(len(ious), dtype=torch.long))
    image.gt_classes = torch.full((len(ious),), label)
    return image


def test_shares_are_those_of_a_count_by_hand():
    edges = torch.tensor([0.0, 0.25, 0.5])
    images = [labeled([0.0, 0.1, 0.25]), labeled([0.4, 0.5]), labeled([0.9], label=0), labeled([])]
    shares = sampling_distribution.negative_shares(images, {"all": RandomSampler()}, 10, 0.5, 1, edges)
    assert shares["all"].tolist() == shares["all negatives"].tolist() == pytest.approx([2 / 5, 3 / 5])
    nothing = sampling_distribution.negative_shares(images[2:], {}, 10, 0.5, 1, edges)
    assert nothing["all negatives"].tolist() == [0, 0]


def test_balanced_negatives_overlap_more_than_random_ones():
    """9 of 10 negatives overlap nothing: at random 10 % are of the upper bins, balanced two thirds."""
    image = labeled([0.0] * 900 + [0.3] * 50 + [0.48] * 50)
    samplers = {"random": RandomSampler(), "balanced": IoUBalancedSampler(3)}
    torch.manual_seed(0)
    shares = sampling_distribution.negative_shares([image], samplers, 60, 0.5, 1, torch.tensor([0.0, 0.2, 0.5]))
    assert shares["balanced"].tolist() == pytest.approx([20 / 60, 40 / 60])
    assert shares["random"][1] < 0.35  # 60 draws of which 10 % are hits: 0.35 is more than six deviations away


def test_hard_negatives_are_those_that_are_most_taken_for_objects():
    """As many as are drawn: 10 of an image's 100 negatives, which are 8 that overlap an object and 2 that do not."""
    image, none = labeled([0.0] * 90 + [0.3] * 10), labeled([0.9], label=0)
    image.foreground_scores = torch.tensor([0.1] * 88 + [0.7] * 2 + [0.9] * 8 + [0.2] * 2)
    none.foreground_scores = torch.tensor([1.0])
    edges = torch.tensor([0.0, 0.05, 0.5])
    shares = sampling_distribution.negative_shares([image, none], {}, 10, 0.5, 1, edges)
    assert shares["hard negatives"].tolist() == pytest.approx([0.2, 0.8])


@pytest.mark.parametrize("of_a_model", [True, False])
def test_the_plot_is_made_by_a_command(of_a_model, whole, datasets, tmp_path, capsys):
    words = ["--output", str(tmp_path / "new" / "plot.png"), "--num", "4"]
    if of_a_model:
        folder = whole[0]
        words += ["--config-file", str(folder / "config.yaml"), "--weights", str(folder / "model_final.pth")]
    shares = sampling_distribution.main(words)
    samplers = ["all negatives", "random", "IoU-balanced, 3 bins", "as released, 3 bins"]
    assert list(shares) == [*samplers, *["hard negatives"] * of_a_model]
    assert all(float(values.sum()) == pytest.approx(1.0) for values in shares.values())
    assert (tmp_path / "new" / "plot.png").read_bytes().startswith(b"\x89PNG")
    told = capsys.readouterr().out
    assert "| 0.45 - 0.50 |" in told and "| above 0.05 " in told


@pytest.mark.parametrize(
    "words, message",
    [
        (["--config-file", config("libra_quick.yaml")], "--weights is missing"),
        (["--config-file", config("libra_quick_retinanet.yaml"), "--weights", "x.pth"], "has no RPN and ROI heads"),
        (["--num-bins", "0"], "argument --num-bins: has to be 1 or more, not 0"),
    ],
)
def test_what_the_plot_cannot_be_made_of_is_said(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {}}, "x.pth")
    with pytest.raises(SystemExit) as caught:
        sampling_distribution.main([*words, "--output", str(tmp_path / "plot.png")])
    assert message in f"{caught.value} {capsys.readouterr().err}"


# --- refused settings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, node, argument, value",
    [
        ("libra_quick", "SAMPLER", "NUM_BINS", 0),
        ("libra_quick", "SAMPLER", "FLOOR_FRACTION", 1.5),
        ("libra_quick", "SAMPLER", "FLOOR_FRACTION", -0.1),
        ("libra_quick_rpn", "RPN.SAMPLER", "NUM_BINS", 0),
        ("libra_quick_rpn", "RPN.SAMPLER", "NEG_POS_UB", 0.0),
        ("libra_quick", "FPN", "REFINE_LEVEL", 5),
        ("libra_quick_retinanet", "FPN", "REFINE_LEVEL", -1),
        ("libra_quick", "BOX_LOSS", "ALPHA", 0.0),
        ("libra_quick", "BOX_LOSS", "GAMMA", -1.5),
        ("libra_quick", "BOX_LOSS", "BETA", 0.0),
        ("libra_quick_rpn", "RPN.BOX_LOSS", "BETA", 0.0),
        ("libra_quick_retinanet", "RETINANET.BOX_LOSS", "ALPHA", -0.5),
    ],
)
def test_a_value_out_of_range_is_refused_when_the_model_is_built(name, node, argument, value):
    cfg = load_yaml(config(f"{name}.yaml"), [f"MODEL.BALANCED.{node}.{argument}", str(value)])
    cfg.MODEL.DEVICE = "meta"
    check_config(cfg)
    with pytest.raises(ValueError, match=rf"^MODEL\.BALANCED\.{node}: \w+: {argument.lower()} must be .*got {value}"):
        with torch.device("meta"):
            build_model(cfg)
