"""Samplers against golden files 3 and 4: mean counts of the authors' released code over many draws."""

import numpy as np
import pytest
import torch
from paths import shared_file
from reference import sampling as reference

from d2_balanced.modeling.sampling import InstanceBalancedSampler, IoUBalancedSampler

DRAWS = 500


@pytest.fixture(scope="module")
def negatives():
    return np.load(shared_file("golden", "iou_balanced_negative.npz"), allow_pickle=False)


@pytest.fixture(scope="module")
def positives():
    return np.load(shared_file("golden", "instance_balanced_positive.npz"), allow_pickle=False)


def array(golden, a):
    """IoUs (N,) and indices of the negatives (Q,) of candidate array ``a``."""
    gt_inds = torch.from_numpy(golden[f"gt_inds_{a}"].astype(np.int64))
    return torch.from_numpy(golden[f"iou_{a}"]), (gt_inds == 0).nonzero()[:, 0]


def sampler_of(golden, r, upper):
    # A used sampler of the released code (state 1) works with floor_thr 0 in place of -1.
    used = golden["sc_state"][r] == 1 and golden["sc_floor_thr"][r] == -1
    return IoUBalancedSampler(
        num_bins=int(golden["sc_K"][r]),
        floor_thr=0.0 if used else float(golden["sc_floor_thr"][r]),
        floor_fraction=float(golden["sc_floor_fraction"][r]),
        upper=upper,
    )


def histograms(draw, column_of, num_columns):
    """(DRAWS, num_columns) counts; ``column_of`` gives the column of each candidate."""
    columns = column_of[torch.stack([draw() for _ in range(DRAWS)])]
    ones = torch.ones((), dtype=torch.float64).expand(columns.shape)
    return torch.zeros(DRAWS, num_columns, dtype=torch.float64).scatter_add_(1, columns, ones)


def iou_histograms(golden, sampler, ious, negative, num):
    edges = torch.from_numpy(golden["hist_edges"]).float()

    column_of = torch.bucketize(ious, edges, right=True).clamp(max=len(edges) - 1).masked_fill(ious == 0, 0)
    return histograms(lambda: sampler.draw_negatives(negative, ious, num), column_of, len(edges))


def tolerance(counts, se):
    return 5 * np.sqrt(counts.var(0).numpy() / DRAWS + se**2) + 0.05


def released_cases(golden):
    """Row, IoUs, negatives of every scenario; scope 1 is the released code given the negatives only."""
    assert len(golden["sc_N"]) > 0
    for r in range(len(golden["sc_N"])):
        ious, negative = array(golden, golden["sc_array"][r])
        if golden["sc_scope"][r] == 1:
            ious, negative = ious[negative], torch.arange(len(negative))
        yield r, ious, negative


def test_released_negatives_every_scenario(negatives):
    torch.manual_seed(3)
    for r, ious, negative in released_cases(negatives):
        num = min(int(negatives["sc_N"][r]), len(negative))
        counts = iou_histograms(negatives, sampler_of(negatives, r, "max_overlap"), ious, negative, num)
        difference = np.abs(counts.mean(0).numpy() - negatives["hist_mean"][r])
        assert (difference <= tolerance(counts, negatives["hist_se"][r])).all(), (r, difference)
        if negatives["total_se"][r] == 0:
            assert (counts.sum(1) == negatives["total_mean"][r]).all(), r


def expected_histogram(golden, r, ious, negative, num, upper):
    """Mean of the histogram by the slow reference."""
    sampler = sampler_of(golden, r, upper)
    neg_ious, options = ious[negative].tolist(), (sampler.num_bins, sampler.floor_thr, sampler.floor_fraction, upper)
    probabilities = reference.iou_balanced(neg_ious, ious.tolist(), num, *options)
    histogram = np.zeros(len(golden["hist_edges"]))
    for iou, p in zip(neg_ious, probabilities):
        histogram[0 if iou == 0 else min(int(iou / 0.05) + 1, len(histogram) - 1)] += p
    return histogram


def test_default_upper_end_every_scenario_on_negatives_only(negatives):
    """The default closes the last bin, so the negative at the maximum is drawn like the others of its bin: against the
    released code given the negatives only, less than one sample moves."""
    torch.manual_seed(4)
    fresh = negatives["sc_state"] == 0
    rows = np.nonzero(fresh & ((negatives["sc_scope"] == 1) | (negatives["sc_array"] != 1)))[0]
    assert len(rows) > 0
    for r in rows:
        ious, negative = array(negatives, negatives["sc_array"][r])
        num = min(int(negatives["sc_N"][r]), len(negative))
        counts = iou_histograms(negatives, sampler_of(negatives, r, "negatives"), ious, negative, num)
        expected = expected_histogram(negatives, r, ious, negative, num, "negatives")
        assert (np.abs(counts.mean(0).numpy() - expected) <= tolerance(counts, 0.0)).all(), r
        moved = np.abs(expected - negatives["hist_mean"][r])
        assert (moved < 1 + 5 * negatives["hist_se"][r]).all(), (r, moved)


def test_instance_balanced_positives_every_scenario(positives):
    torch.manual_seed(5)
    sampler = InstanceBalancedSampler()
    assert len(positives["N"]) > 0
    for s, num in enumerate(positives["N"].tolist()):
        matched_idxs = torch.from_numpy(positives[f"gt_inds_{s}"].astype(np.int64)) - 1
        positive = (matched_idxs >= 0).nonzero()[:, 0]
        golden = ~np.isnan(positives["candidates"][s])
        num_objects = int(golden.sum())
        counts = histograms(
            lambda: sampler.draw_positives(positive, matched_idxs, num), matched_idxs, num_objects
        )
        difference = np.abs(counts.mean(0).numpy() - positives["sane_mean"][s][golden])
        assert (difference <= tolerance(counts, positives["sane_se"][s][golden])).all(), (s, difference)
        assert positives["sane_total_se"][s] == 0 and (counts.sum(1) == positives["sane_total_mean"][s]).all()
