"""What parallel heads think of the same proposals at test time (RGA + PRM, figure 6):

    python -m d2_balanced.analysis.branch_scores --config-file CONFIG --weights model_final.pth --output branch_scores
    python -m d2_balanced.analysis.branch_scores --config-file CONFIG --weights runs/seed*/model_final.pth \\
        --val-json val.json --val-images val --output branch_scores

Every proposal of the test images is scored by each branch. Writes ``branch_scores.png``, with the distribution of the
foreground probabilities by branch and of their differences to the main branch's, and ``branch_scores.json``, with the
share of the differences above 0.1 (the paper: 21.9 %). Of several checkpoints all proposals are counted together. What no
branch scores above the detector's threshold is left out of the figure, and is in ``all`` of the JSON.
"""

from __future__ import annotations

import json
import os

import numpy as np
import torch
from detectron2.data import DatasetCatalog
from tabulate import tabulate

from ..arguments.branch_scores import argument_parser
from ..evaluation.write_results import without_nan, write_text
from ..utils.command import command
from ..utils.errors import ConfigError
from .checkpoints import load_each, open_for_evaluation, parse
from .curves import bin_centres
from .panels import curve_figure
from .pictures import choose_evenly

__all__ = ["main", "score_branches", "summary"]

_LARGE = 0.1
_BINS = 20


@torch.no_grad()
def score_branches(model, mapper, records):
    """Foreground probabilities (n, P) of all proposals of the records' images by P branches of the first stage.

    Args:
        model: a detector with an RPN and ``BalancedROIHeads``; it is left in evaluation mode.
        mapper: detectron2's test mapper.
        records: dataset dicts.

    Raises ``ConfigError`` for a model with fewer than two branches.
    """
    heads = getattr(model, "roi_heads", None)
    if len(getattr(heads, "branches", ())) < 2 or model.proposal_generator is None:
        raise ConfigError("branch_scores: the model has no parallel branches (MODEL.BALANCED.BRANCHES) to compare.")
    model.eval()
    scores = []
    for record in records:
        images = model.preprocess_image([mapper(record)])
        features = model.backbone(images.tensor)
        proposals, _ = model.proposal_generator(images, features, None)
        maps = [features[name] for name in heads.box_in_features]
        pooled = heads.box_pooler(maps, [image.proposal_boxes for image in proposals])
        of_branches = [
            1 - branch.predictor(0).predict_probs(branch.predict(pooled, 0), proposals)[0][:, -1]
            for branch in heads.branches
        ]
        scores.append(torch.stack(of_branches, dim=1).cpu().numpy())
    return np.concatenate(scores)


def summary(scores, main_branch, threshold):
    """``{"all": .., "above the threshold": ..}``: how many proposals, and the share of large differences by branch.

    Args:
        scores: (n, P) of :func:`score_branches`.
        main_branch: index of the branch that the others are compared with.
        threshold: proposals that no branch scores above it are left out of the second.
    """
    found = {}
    for name, chosen in (("all", scores), ("above the threshold", scores[(scores > threshold).any(axis=1)])):
        differences = np.abs(chosen - chosen[:, [main_branch]])
        shares = [_mean(column > _LARGE) for column in differences.T]
        others = {f"branch {p}": share for p, share in enumerate(shares) if p != main_branch}
        means = {f"branch {p}": _mean(column) for p, column in enumerate(chosen.T)}
        found[name] = {"proposals": len(chosen), "share_above_0.1": others, "mean_score": means}
    return found


def _mean(values):
    return float(values.mean()) if len(values) else float("nan")


def _figure(scores, main_branch, threshold):
    scores = scores[(scores > threshold).any(axis=1)]
    differences = np.abs(scores - scores[:, [main_branch]])
    own = {f"branch {p}": _shares(scores[:, p]) for p in range(scores.shape[1])}
    others = {f"branch {p}": _shares(differences[:, p]) for p in range(scores.shape[1]) if p != main_branch}
    share, logarithmic, label = "share of the proposals", {"yscale": "log"}, f"absolute difference to branch {main_branch}"
    panels = [
        ("scores", "foreground probability", share, own, logarithmic),
        ("differences", label, share, others, logarithmic),
    ]
    return curve_figure("Scores of parallel heads for the same proposals, at test time", panels, steps=True)


def _shares(values):
    counts = np.histogram(values, _BINS, (0, 1))[0]
    return bin_centres(counts), counts / max(counts.sum(), 1)


@command("python -m d2_balanced.analysis.branch_scores")
def main(argv=None):
    """The commands at the top of this module; prints the numbers and returns them."""
    args = parse(argument_parser(), argv)
    experiment = open_for_evaluation(args)
    records = DatasetCatalog.get(experiment.test_datasets[0])
    records = choose_evenly(records, args.images if args.images is not None else max(len(records), 1))
    model, mapper = experiment.build_model(), experiment.build_mapper(False)
    scores = np.concatenate([score_branches(model, mapper, records) for _ in load_each(model, args.weights)])
    heads = model.roi_heads
    settings = heads.main_branch, heads.branches[heads.main_branch].predictor(0).test_score_thresh
    found = summary(scores, *settings)
    return _write(args.output, found, _figure(scores, *settings))


def _write(folder, found, figure):
    os.makedirs(folder, exist_ok=True)
    write_text(os.path.join(folder, "branch_scores.json"), json.dumps(without_nan(found), indent=1) + "\n")
    figure.savefig(os.path.join(folder, "branch_scores.png"), dpi=110)
    rows = [
        [name, each["proposals"], branch, f"{100 * share:.1f} %"]
        for name, each in found.items()
        for branch, share in each["share_above_0.1"].items()
    ]
    print(tabulate(rows, ["", "proposals", "", "differences above 0.1"], tablefmt="github", disable_numparse=True))
    print(os.path.join(folder, "branch_scores.png"))
    return found


if __name__ == "__main__":
    main()
