"""Samplers: detectron2's at neutral settings, their rules against a slow reference, invariants, bad settings."""

import math

import pytest
import torch
from detectron2.modeling.sampling import subsample_labels
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import sampling as reference
from torch._subclasses.fake_tensor import FakeTensorMode

from d2_balanced.modeling.spec import build_component
from d2_balanced.modeling.registry import PROPOSAL_SAMPLER_REGISTRY
from d2_balanced.modeling.sampling import (
    HardRatioSampler,
    InstanceBalancedSampler,
    IoUBalancedSampler,
    RandomSampler,
    sample_images,
)

BG = 5
SAMPLERS = {
    "random": RandomSampler(),
    "random, 3 negatives a positive": RandomSampler(neg_pos_ub=3),
    "iou": IoUBalancedSampler(),
    "iou, floor": IoUBalancedSampler(floor_thr=0.1, floor_fraction=0.3),
    "iou, zero floor": IoUBalancedSampler(num_bins=5, floor_thr=0.0, floor_fraction=0.5),
    "iou, only floor": IoUBalancedSampler(floor_thr=0.2, floor_fraction=1.0),
    "iou, max overlap": IoUBalancedSampler(num_bins=2, upper="max_overlap"),
    "iou and instance": IoUBalancedSampler(positives="instance_balanced", neg_pos_ub=1.5),
    "instance": InstanceBalancedSampler(),
    "hard ratio": HardRatioSampler(),
    "iou and hard ratio": IoUBalancedSampler(positives="hard_ratio"),
}
each_sampler = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS.keys())


def image(labels, ious=None, matched_idxs=None):
    labels = torch.as_tensor(labels, dtype=torch.int64)
    ious = torch.linspace(0, 0.9, len(labels)) if ious is None else torch.as_tensor(ious, dtype=torch.float32)
    matched = torch.arange(len(labels)) % 3 if matched_idxs is None else torch.as_tensor(matched_idxs)
    return labels, ious, matched


def typical_image(num=2000, num_positives=300, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.full((num,), BG)
    labels[:num_positives] = torch.randint(0, BG, (num_positives,), generator=generator)
    labels[-50:] = -1
    ious = 0.5 * torch.rand(num, generator=generator) ** 3
    ious[:num_positives] += 0.5
    return labels, ious, torch.randint(0, 12, (num,), generator=generator)


def draw(sampler, labels, ious, matched_idxs, num_samples=512, fraction=0.25, seed=0):
    torch.manual_seed(seed)
    return sampler(labels, ious, matched_idxs, num_samples, fraction, BG)


# --- detectron2's sampler --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("neutral", [RandomSampler(), IoUBalancedSampler(num_bins=1)], ids=repr)
@pytest.mark.parametrize("num_positives", [0, 1, 60, 300, 1950])
@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.5, 1.0])
def test_neutral_settings_are_detectron2_to_the_bit(neutral, num_positives, fraction):
    labels, ious, matched_idxs = typical_image(num_positives=num_positives)
    ours = draw(neutral, labels, ious, matched_idxs, fraction=fraction)
    rng_after_ours = torch.get_rng_state()
    torch.manual_seed(0)
    theirs = subsample_labels(labels, 512, fraction, BG)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs))
    assert torch.equal(rng_after_ours, torch.get_rng_state())


@pytest.mark.parametrize(
    "sampler", [s for s in SAMPLERS.values() if s.neg_pos_ub == -1 and not s.repeats_positives], ids=repr
)
def test_where_nothing_is_to_choose_it_is_detectron2_to_the_bit(sampler):
    """Few enough positives and negatives: no policy has a choice."""
    labels, ious, matched_idxs = typical_image(num=300, num_positives=60)
    torch.manual_seed(0)
    theirs = subsample_labels(labels, 512, 0.25, BG)
    assert all(torch.equal(a, b) for a, b in zip(draw(sampler, labels, ious, matched_idxs), theirs))


# --- rules, against the slow reference -------------------------------------------------------------------------------


def assert_drawn_as_often(draws, candidates, probabilities):
    """``draws`` (n, num) against the probability of each candidate.

    Sure ones must be exact. For the others, Bernstein's bound on a mean of n draws, at a chance of 1e-9 of failing
    for each candidate under a right sampler.
    """
    n = len(draws)
    frequency = torch.bincount(draws.flatten(), minlength=int(candidates.max()) + 1)[candidates] / n
    log_term = math.log(2 / 1e-9)
    for f, p in zip(frequency.tolist(), probabilities):
        bound = math.sqrt(2 * p * (1 - p) * log_term / n) + 2 * log_term / (3 * n)
        assert abs(f - p) <= (0.0 if p in (0.0, 1.0) else bound), (f, p)


IOU_SETTINGS = [
    dict(num_bins=3),
    dict(num_bins=1, floor_thr=0.0, floor_fraction=0.5),
    dict(num_bins=2, floor_thr=0.1, floor_fraction=0.3),
    dict(num_bins=3, floor_fraction=0.3),
    dict(num_bins=3, floor_thr=0.0),
    dict(num_bins=3, floor_thr=0.3, floor_fraction=1.0),
    dict(num_bins=3, upper="max_overlap"),
    dict(num_bins=4, upper="max_overlap", floor_thr=0.1, floor_fraction=0.25),
]
# IoUs in 64ths, which no rounding moves over a bin's edge
NEG_IOUS = [0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 4, 4, 5, 6, 7, 8, 9, 11, 13, 14, 16, 17, 25, 28, 31]


@pytest.mark.parametrize("options", IOU_SETTINGS, ids=str)
@pytest.mark.parametrize("num", [2, 6, 12, 20, 26])
def test_iou_balanced_negatives_against_reference(options, num):
    ious = torch.tensor([60, 40, *NEG_IOUS]) / 64  # two positives first
    negative = torch.arange(2, len(ious))
    sampler = IoUBalancedSampler(**options)
    torch.manual_seed(1)
    draws = torch.stack([sampler.draw_negatives(negative, ious, num) for _ in range(400)])
    expected = reference.iou_balanced(ious[2:].tolist(), ious.tolist(), num, **options)
    assert_drawn_as_often(draws, negative, expected)


@pytest.mark.parametrize("counts", [[9], [1, 1, 10], [4, 4, 4], [2, 3, 12, 1], [1] * 12], ids=str)
@pytest.mark.parametrize("num", [1, 2, 5, 6, 8])
def test_instance_balanced_positives_against_reference(counts, num):
    matched_gt = [7 * g for g, count in enumerate(counts) for _ in range(count)]  # objects' numbers need not be dense
    positive = torch.arange(len(matched_gt)) + 3
    matched_idxs = torch.tensor([0, 0, 0, *matched_gt])
    sampler = InstanceBalancedSampler()
    torch.manual_seed(1)
    draws = torch.stack([sampler.draw_positives(positive, matched_idxs, num) for _ in range(400)])
    assert_drawn_as_often(draws, positive, reference.instance_balanced(matched_gt, num))


def test_hard_ratio_repeats_every_positive_alike():
    labels, ious, matched_idxs = image([0, 1, 2, *[BG] * 60])
    pos_idx, neg_idx = draw(HardRatioSampler(), labels, ious, matched_idxs, num_samples=40, fraction=0.25)
    assert sorted(torch.bincount(pos_idx).tolist()) == [3, 3, 4]  # 10 = 40 * 0.25 of 3 positives
    assert len(neg_idx) == 30 and len(neg_idx.unique()) == 30


def test_hard_ratio_without_positives_is_filled_with_negatives():
    pos_idx, neg_idx = draw(HardRatioSampler(), *image([BG] * 50), num_samples=40)
    assert (len(pos_idx), len(neg_idx)) == (0, 40)


def test_neg_pos_ub_counts_one_positive_where_there_is_none():
    sampler = RandomSampler(neg_pos_ub=5)
    assert len(draw(sampler, *image([BG] * 50), num_samples=40)[1]) == 5
    assert len(draw(sampler, *image([0, 1, 2] + [BG] * 50), num_samples=40, fraction=0.5)[1]) == 15


# --- invariants ------------------------------------------------------------------------------------------------------

proposals = st.tuples(st.sampled_from([-1, 0, 4, BG, BG]), st.integers(0, 64).map(lambda i: i / 64), st.integers(0, 5))
images = st.lists(proposals, max_size=60).map(lambda rows: image(*zip(*rows)) if rows else image([]))


@settings(max_examples=300, deadline=None)
@given(
    images,
    st.sampled_from(sorted(SAMPLERS)),
    st.integers(1, 40),
    st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]),
    st.integers(0, 2**31),
)
def test_invariants(one_image, name, num_samples, fraction, seed):
    sampler = SAMPLERS[name]
    labels, ious, matched_idxs = one_image
    pos_idx, neg_idx = draw(sampler, *one_image, num_samples, fraction, seed)
    positive = ((labels >= 0) & (labels < BG)).nonzero()[:, 0].tolist()
    negative = (labels == BG).nonzero()[:, 0].tolist()

    assert set(pos_idx.tolist()) <= set(positive) and set(neg_idx.tolist()) <= set(negative)
    quota = int(num_samples * fraction)
    if sampler.repeats_positives:
        assert len(pos_idx) == (quota if positive else 0)
        times = [pos_idx.tolist().count(p) for p in positive]
        assert not times or max(times) - min(times) <= 1
    else:
        assert len(pos_idx) == min(len(positive), quota)
        assert len(set(pos_idx.tolist())) == len(pos_idx)
    bound = math.inf if sampler.neg_pos_ub == -1 else int(sampler.neg_pos_ub * max(len(pos_idx), 1))
    assert len(neg_idx) == min(len(negative), num_samples - len(pos_idx), bound)
    assert len(set(neg_idx.tolist())) == len(neg_idx)

    again = draw(sampler, *one_image, num_samples, fraction, seed)  # a second call: no state, same seed, same draw
    assert torch.equal(pos_idx, again[0]) and torch.equal(neg_idx, again[1])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(0, 63), min_size=2, max_size=80), st.integers(1, 6), st.integers(1, 79), st.integers(0, 2**31)
)
def test_every_bin_gives_its_quota_or_all_it_has(numerators, num_bins, num, seed):
    ious = torch.tensor(numerators) / 128
    num = min(num, len(ious) - 1)
    torch.manual_seed(seed)
    drawn = IoUBalancedSampler(num_bins).draw_negatives(torch.arange(len(ious)), ious, num).tolist()
    bins = reference.iou_bins(ious.tolist(), [False] * len(ious), None, num_bins, -1, "negatives")
    for k in range(num_bins):
        members = [i for i, b in enumerate(bins) if b == k]
        assert len(set(members) & set(drawn)) >= min(num // num_bins, len(members))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 8), min_size=2, max_size=80), st.integers(1, 79), st.integers(0, 2**31))
def test_every_object_gives_its_quota_or_all_it_has(matched_gt, num, seed):
    num = min(num, len(matched_gt) - 1)
    torch.manual_seed(seed)
    positive = torch.arange(len(matched_gt))
    drawn = InstanceBalancedSampler().draw_positives(positive, torch.tensor(matched_gt), num)
    quota = round(num / len(set(matched_gt))) + 1
    first = {g: min(quota, matched_gt.count(g)) for g in set(matched_gt)}
    for g, full in first.items():
        times = sum(matched_gt[i] == g for i in drawn.tolist())
        assert times <= full if sum(first.values()) >= num else times >= full


# --- nasty cases -----------------------------------------------------------------------------------------------------

NASTY = {
    "empty": image([]),
    "one positive": image([0]),
    "one negative": image([BG]),
    "one ignored": image([-1]),
    "all ignored": image([-1] * 9),
    "all positive": image([1] * 30),
    "all background": image([BG] * 30),
    "ties": image([0, 1] + [BG] * 30, [0.75] * 2 + [0.25] * 30),
    "no overlap": image([BG] * 30, [0.0] * 30),
}


@each_sampler
@pytest.mark.parametrize("case", NASTY.values(), ids=NASTY.keys())
@pytest.mark.parametrize("num_samples", [1, 8, 512])
def test_nasty_cases(sampler, case, num_samples):
    pos_idx, neg_idx = draw(sampler, *case, num_samples=num_samples, fraction=0.5)
    assert pos_idx.dtype == neg_idx.dtype == torch.int64 and pos_idx.dim() == neg_idx.dim() == 1
    labels = case[0]
    assert (labels[pos_idx] != BG).all() and (labels[pos_idx] != -1).all() and (labels[neg_idx] == BG).all()
    assert len(pos_idx) + len(neg_idx) <= num_samples


@each_sampler
def test_int8_labels_of_an_rpn(sampler):
    labels = torch.tensor([1, 0, -1] * 20, dtype=torch.int8)
    pos_idx, neg_idx = sampler(labels, torch.rand(60), torch.arange(60) % 4, 16, 0.5, 0)
    assert (labels[pos_idx] == 1).all() and (labels[neg_idx] == 0).all() and len(neg_idx) == 8


# --- a batch ---------------------------------------------------------------------------------------------------------


class OwnRules(RandomSampler):
    def __call__(self, labels, ious, matched_idxs, num_samples, positive_fraction, bg_label):
        return (labels == 1).nonzero()[:1, 0], (labels == bg_label).nonzero()[:2, 0]


def three_numbers(labels, *_):
    """A sampler of one image that is no ProposalSampler."""
    return torch.arange(len(labels))[:2], torch.arange(len(labels))[2:3]


@pytest.mark.parametrize("sampler", [*SAMPLERS.values(), OwnRules(), three_numbers], ids=lambda s: getattr(s, "__name__", repr(s)))
@pytest.mark.parametrize("num_samples", [8, 512])
def test_a_batch_is_sampled_as_its_images_one_after_the_other(sampler, num_samples):
    """Equal samples, and equal use of torch's generator."""
    batch = [*NASTY.values(), typical_image(), typical_image(seed=1), *NASTY.values()]
    settings = (num_samples, 0.25, BG)
    torch.manual_seed(0)
    one_by_one = [sampler(*each, *settings) for each in batch]
    then = torch.rand(1)
    torch.manual_seed(0)
    at_once = sample_images(sampler, *zip(*batch), *settings)
    assert torch.equal(then, torch.rand(1)) and len(at_once) == len(batch)
    assert all(torch.equal(a, b) for pair in zip(one_by_one, at_once) for a, b in zip(*pair))


# --- on the device, without synchronisation --------------------------------------------------------------------------


@each_sampler
@pytest.mark.skipif(torch.__version__ < (2, 11), reason="fake CUDA tensors need a driver in torch 2.8 and before")
def test_draws_on_the_device_without_synchronisation(sampler):
    """Fake CUDA tensors have no values: anything that reads one, or mixes devices, raises."""
    with FakeTensorMode():
        candidates = torch.arange(1700, device="cuda")
        ious = torch.rand(2000, device="cuda")
        matched_idxs = torch.randint(0, 9, (2000,), device="cuda")
        pos_idx = sampler.draw_positives(candidates, matched_idxs, 128)
        neg_idx = sampler.draw_negatives(candidates, ious, 384)
    assert (pos_idx.shape, neg_idx.shape) == ((128,), (384,))
    assert pos_idx.device.type == neg_idx.device.type == "cuda"


@each_sampler
def test_reads_two_counts_from_the_device_as_detectron2_does(sampler):
    def synchronising_ops(call):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            call()
        names = [event.name for event in profile.events()]
        return {n: names.count(n) for n in ("aten::nonzero", "aten::_local_scalar_dense", "aten::masked_select")}

    labels, ious, matched_idxs = typical_image()
    ours = synchronising_ops(lambda: sampler(labels, ious, matched_idxs, 512, 0.25, BG))
    assert ours == synchronising_ops(lambda: subsample_labels(labels, 512, 0.25, BG))


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, named",
    [
        (dict(num_bins=0), "num_bins"),
        (dict(num_bins=2.5), "num_bins"),
        (dict(floor_thr=-0.5), "floor_thr"),
        (dict(floor_thr=1.0), "floor_thr"),
        (dict(floor_fraction=-0.1), "floor_fraction"),
        (dict(floor_fraction=1.1), "floor_fraction"),
        (dict(upper="all"), "upper"),
        (dict(positives="libra"), "positives"),
        (dict(neg_pos_ub=0), "neg_pos_ub"),
        (dict(neg_pos_ub=-2), "neg_pos_ub"),
    ],
)
def test_bad_settings_are_refused_by_name(options, named):
    given_value = next(iter(options.values()))
    with pytest.raises(ValueError, match=f"IoUBalancedSampler: {named} must be .*[,;] got {given_value!r}"):
        IoUBalancedSampler(**options)
    node = {"NAME": "IoUBalancedSampler", **{name.upper(): value for name, value in options.items()}}
    with pytest.raises(ValueError, match=f"MODEL.BALANCED.SAMPLER.*{named}|MODEL.BALANCED.SAMPLER.{named.upper()}"):
        build_component(PROPOSAL_SAMPLER_REGISTRY, node, "MODEL.BALANCED.SAMPLER")


def test_built_from_yacs():
    node = {"NAME": "IoUBalancedSampler", "NUM_BINS": 5, "POSITIVES": "instance_balanced", "FLOOR_THR": 0.1}
    sampler = build_component(PROPOSAL_SAMPLER_REGISTRY, node, "MODEL.BALANCED.SAMPLER")
    assert repr(sampler) == repr(IoUBalancedSampler(num_bins=5, positives="instance_balanced", floor_thr=0.1))
