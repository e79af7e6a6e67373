"""Scores of parallel branches for the same test proposals (RGA + PRM, figure 6)."""

import json
import os

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from paths import ROOT
from tiny_runs import TINY, make_dataset, quick_config

from d2_balanced.analysis import branch_scores
from d2_balanced.engine.experiment import OwnData
from d2_balanced.engine.open import open_experiment

QUICK = os.path.join(ROOT, "projects", "RGA_PRM", "configs", "prm_quick.yaml")
SETTINGS = [*map(str, TINY), "MODEL.DEVICE", "cpu", "SEED", "1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small detector with two branches, its experiment, its weights, and the words that name its data."""
    folder = tmp_path_factory.mktemp("scores")
    val = make_dataset(folder / "val", images=3)
    experiment = open_experiment(QUICK, SETTINGS, OwnData(val_json=val[0], val_images=val[1]))
    experiment.use_own_data()
    torch.manual_seed(0)
    model = experiment.build_model().eval()
    with torch.no_grad():
        for branch in model.roi_heads.branches:
            branch.predictor(0).cls_score.weight.mul_(30)
    torch.save({"model": model.state_dict()}, folder / "model.pth")
    return model, experiment, str(folder / "model.pth"), ["--val-json", val[0], "--val-images", val[1]]


def test_every_proposal_is_scored_by_every_branch(trained):
    model, experiment, _, _ = trained
    record, mapper = DatasetCatalog.get("own_val")[0], experiment.build_mapper(False)
    scores = branch_scores.score_branches(model, mapper, [record])
    heads = model.roi_heads
    with torch.no_grad():
        images = model.preprocess_image([mapper(record)])
        features = model.backbone(images.tensor)
        (proposals,), _ = model.proposal_generator(images, features, None)
        pooled = heads.box_pooler([features[f] for f in heads.box_in_features], [proposals.proposal_boxes])
        for p, branch in enumerate(heads.branches):
            expected = branch.predict(pooled, 0)[0].softmax(dim=1)[:, :-1].sum(dim=1)
            np.testing.assert_allclose(scores[:, p], expected, atol=1e-5)
    assert scores.shape == (len(proposals), 2) and np.abs(scores[:, 0] - scores[:, 1]).max() > 0.1


def test_shares_are_those_of_a_count_by_hand():
    scores = np.array([[0.9, 0.6], [0.5, 0.45], [0.01, 0.02], [0.04, 0.2]])
    found = branch_scores.summary(scores, main_branch=0, threshold=0.05)
    assert found["all"]["proposals"] == 4 and found["above the threshold"]["proposals"] == 3
    assert found["all"]["share_above_0.1"] == {"branch 1": 0.5}
    assert found["above the threshold"]["share_above_0.1"] == {"branch 1": pytest.approx(2 / 3)}
    assert np.isnan(branch_scores.summary(scores[:0], 0, 0.05)["all"]["share_above_0.1"]["branch 1"])


def test_the_command_draws_and_writes(trained, tmp_path):
    _, _, weights, data = trained
    words = ["--config-file", QUICK, "--weights", weights, weights, *data, "--output", str(tmp_path), *SETTINGS]
    found = branch_scores.main(words)
    assert json.loads((tmp_path / "branch_scores.json").read_text()) == found
    assert (tmp_path / "branch_scores.png").read_bytes().startswith(b"\x89PNG")
    assert found["all"]["proposals"] >= found["above the threshold"]["proposals"] and found["all"]["proposals"] > 0


def test_a_detector_with_one_branch_is_refused(trained, tmp_path):
    config, data = quick_config("faster_rcnn"), trained[3]
    experiment = open_experiment(config, SETTINGS, OwnData(val_json=data[1], val_images=data[3]))
    experiment.use_own_data()
    torch.save({"model": experiment.build_model().state_dict()}, tmp_path / "one.pth")
    words = ["--config-file", config, "--weights", str(tmp_path / "one.pth"), *data, "--output", str(tmp_path)]
    with pytest.raises(SystemExit, match="no parallel branches"):
        branch_scores.main([*words, *SETTINGS])
