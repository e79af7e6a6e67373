"""Figures 1 and 2 of Dynamic R-CNN from a recording: numbers by hand, older recordings, points of a checkpoint."""

import numpy as np
import pytest
import roi_heads_tools as h
import torch

from d2_balanced.analysis import quality_figures as figures
from d2_balanced.analysis.training_samples import TargetPoints
from d2_balanced.recording.counts import FIELDS
from d2_balanced.recording.file import Recording


def window(first, **fields):
    values = {name: np.zeros(size) for name, size in FIELDS.items()}
    for name, given in fields.items():
        for index, value in given.items():
            values[name][index] = value
    return first, first + 1, {(0, 0): values, (1, 0): {name: np.full(size, 99.0) for name, size in FIELDS.items()}}


# 3 proposals of IoU 0.5 to 0.55 with dx -0.2, 0, 0.2, and one of IoU 0.7 to 0.75 with dx 0.1, in two images, one empty.
RECORDING = Recording(
    [
        window(
            0,
            images={0: 2},
            images_by_objects={0: 1, 4: 1},
            proposal_ious={10: 3, 14: 1},
            target_x={14: 0.1},
            target_x_squares={10: 0.08, 14: 0.01},
            best_iou_sum={0: 0.6},
            best_error_sum={0: 0.3},
        )
    ],
    [],
)


def lines(axes):
    return {line.get_label(): line.get_ydata().tolist() for line in axes.lines if not line.get_label().startswith("_")}


def test_positives_at_fixed_thresholds_and_their_spread():
    counts, spread, _ = figures.draw_positives_by_threshold({"a": RECORDING}).axes
    assert {k: v[0] for k, v in lines(counts).items()} == {"IoU 0.5": 2, "IoU 0.6": 0.5, "IoU 0.7": 0.5, "IoU 0.8": 0}
    found = lines(spread)
    assert found["IoU 0.5"] == pytest.approx([np.std([-0.2, 0, 0.2, 0.1])])
    assert found["IoU 0.7"] == pytest.approx([0.0]) and np.isnan(found["IoU 0.8"][0])


def test_quality_is_a_mean_over_images_with_objects():
    iou, error = figures.draw_proposal_quality({"a": RECORDING}).axes
    assert [axes.lines[0].get_ydata().tolist() for axes in (iou, error)] == [[0.6], [0.3]]


def test_targets_by_time_and_recordings_of_before():
    axes = figures.draw_regression_targets({"a": RECORDING}).axes[0]
    assert axes.lines[0].get_ydata()[:2] == pytest.approx([np.std([-0.2, 0, 0.2, 0.1]), 0.0])
    old = Recording([window(0, images={0: 2}, proposal_ious={10: 3})], [])
    old.windows[0][2].pop((1, 0))
    for draw in (figures.draw_positives_by_threshold, figures.draw_proposal_quality, figures.draw_regression_targets):
        assert draw({"a": old}) is None


def test_points_are_the_targets_of_single_proposals():
    heads, targets, points = h.build(h.tiny_cfg()), h.targets((4, 0, 7)), TargetPoints(above=0.5)
    heads.observers.append(points)
    _, (view,) = h.watched_step(heads, h.features(3), h.proposals(targets), targets)
    number = sum(int(((image.matched_ious >= 0.5) & ~image.is_gt).sum()) for image in view.labeled[0])
    assert len(points.points) == number > 10
    image = view.labeled[0][0]
    first = next(i for i in range(len(image)) if image.matched_ious[i] >= 0.5 and not image.is_gt[i])
    (x0, y0, x1, y1), (a0, b0, a1, b1) = (b.tensor[first].tolist() for b in (image.proposal_boxes, image.gt_boxes))
    expected = [((a0 + a1) - (x0 + x1)) / 2 / (x1 - x0), ((b0 + b1) - (y0 + y1)) / 2 / (y1 - y0)]
    expected += [np.log((a1 - a0) / (x1 - x0)), np.log((b1 - b0) / (y1 - y0))]
    assert points.points[0] == pytest.approx([image.matched_ious[first].item(), *expected], abs=1e-5)
    figure = figures.draw_targets(points.points)
    assert len([axes for axes in figure.axes if axes.get_title()]) == 6
    assert figures.draw_targets(TargetPoints().points) is None
    assert not any(isinstance(each, torch.Tensor) for each in (points.points,))
