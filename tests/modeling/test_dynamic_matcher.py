"""Dynamic R-CNN's matcher and loss on streams of proposals: golden file 5, a scalar reference, what does not count."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from paths import shared_file

from d2_balanced.modeling.box_losses import DynamicSmoothL1
from reference import dynamic as reference

from dynamic_streams import NUM_CLASSES, WEIGHTS, components, random_stream, scalar_batches, step, view_of_batch

STREAMS = ("A", "B", "SHORT", "NOPOS", "SKIP", "ZERO")
GOLDEN_ATOL = 1e-6  # golden/README.md, file 5


def golden_batches(stream):
    """The stream as a list of batches of images of rows (iou, dx, dy, is_gt); None for an image without GT."""
    arrays = np.load(shared_file("golden", "dynamic_rcnn.npz"), allow_pickle=False)
    counts = arrays[f"{stream}_counts"]
    total = int(counts.clip(0).sum())
    is_gt = np.unpackbits(arrays[f"{stream}_is_gt"])[:total]
    rows = np.column_stack([arrays[f"{stream}_iou"], arrays[f"{stream}_dxy"], is_gt]).astype(np.float32)
    ends = counts.ravel().clip(0).cumsum()
    images = [None if n < 0 else rows[end - n : end] for n, end in zip(counts.ravel(), ends)]
    return arrays, [images[i : i + 2] for i in range(0, len(images), 2)]


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("scope, release", [("batch", "official_sane"), ("image", "mmdet_sane")])
def test_golden_streams(stream, scope, release):
    arrays, batches = golden_batches(stream)
    k_iou, k_error, period = (int(n) for n in arrays[f"{stream}_K_I_K_E_C"])
    matcher, loss = components(k_iou, k_error, period, scope=scope)
    used, logged = zip(*(step(matcher, loss, batch, i) for i, batch in enumerate(batches)))
    np.testing.assert_allclose(used, arrays[f"{stream}_{release}_used"], rtol=0, atol=GOLDEN_ATOL)
    final = [float(matcher.threshold), float(loss.beta)]
    np.testing.assert_allclose(final, arrays[f"{stream}_{release}_final"], rtol=0, atol=GOLDEN_ATOL)
    for column, name in enumerate(("dynamic_matcher/iou_statistic", "dynamic_smooth_l1/error_statistic")):
        wanted = arrays[f"{stream}_{release}_stat"][:, column]
        measured = np.array([values[name] for values in logged])
        np.testing.assert_allclose(measured[~np.isnan(wanted)], wanted[~np.isnan(wanted)], rtol=0, atol=GOLDEN_ATOL)
        repeated = np.isnan(wanted[1:])  # nothing recorded: the last one is shown again
        np.testing.assert_array_equal(measured[1:][repeated], measured[:-1][repeated])
    if release == "mmdet_sane":
        seen = arrays[f"{stream}_{release}_status"] != 1
        positives = np.array([values["dynamic_matcher/num_positives"] for values in logged])[seen] * 2  # images a batch
        np.testing.assert_array_equal(positives, arrays[f"{stream}_{release}_num_pos"][seen])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    scope=st.sampled_from(["batch", "image"]),
    count_appended_gt=st.booleans(),
    k_iou=st.integers(1, 12),
    k_error=st.integers(1, 6),
    period=st.integers(1, 5),
)
@example(seed=8388607, scope="batch", count_appended_gt=False, k_iou=1, k_error=1, period=4)  # two updates put off
def test_equals_the_scalar_reference(seed, scope, count_appended_gt, k_iou, k_error, period):
    stream = [b for b in random_stream(seed, 14, without_gt=0.1) if all(i is None or len(i) for i in b)]
    scalar = scalar_batches(stream, count_appended_gt)
    # Not an image of appended boxes only: the rule for nothing to rank is tested below.
    assume(all(image is None or image for batch in scalar for image in batch))
    # Sampled positives are those of the matcher, so the reference needs the rows that do not count out of its way.
    matcher, loss = components(k_iou, k_error, period, scope=scope, count_appended_gt=count_appended_gt)
    expected, final = reference.trajectory(scalar, k_iou, k_error, period, scope)
    used = [step(matcher, loss, batch, i)[0] for i, batch in enumerate(stream)]
    np.testing.assert_allclose(used, [e[:2] for e in expected], rtol=0, atol=1e-6)
    np.testing.assert_allclose([float(matcher.threshold), float(loss.beta)], final, rtol=0, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31 - 1), st.sampled_from(["batch", "image"]), st.sampled_from(["skip_batch", "leave_out"]))
def test_values_stay_in_their_ranges_and_finite(seed, scope, empty_images):
    matcher, loss = components(3, 2, 2, scope=scope, empty_images=empty_images)
    for i, batch in enumerate(random_stream(seed, 12, without_gt=0.5, zeros=0.7)):
        (threshold, beta), logged = step(matcher, loss, batch, i)
        assert 0.4 <= round(threshold, 6) <= 1.0 and 0.0 < beta <= 1.0
        assert all(math.isfinite(value) for value in logged.values())


def test_images_without_gt_are_left_out_if_asked_for():
    stream = random_stream(0, 12, images=3, without_gt=0.4, zeros=0.0)
    left = [[image for image in batch if image is not None and len(image)] for batch in stream]
    matcher, loss = components(3, 2, 4, empty_images="leave_out")
    other_matcher, other_loss = components(3, 2, 4)
    for i, (batch, rest) in enumerate(zip(stream, left)):
        step(matcher, loss, [None if image is None or not len(image) else image for image in batch], i)
        step(other_matcher, other_loss, rest, i) if rest else step(other_matcher, other_loss, [None], i)
    assert len({len(rest) for rest in left}) > 1
    assert float(matcher.threshold) == float(other_matcher.threshold) != pytest.approx(0.4)
    assert float(loss.beta) == float(other_loss.beta) != 1.0


@pytest.mark.parametrize("batch", [[None, None], [np.zeros((0, 4), np.float32)], []], ids=["no gt", "no rows", "none"])
@pytest.mark.parametrize("scope", ["batch", "image"])
def test_batches_with_nothing_to_rank_change_nothing(batch, scope):
    matcher, loss = components(1, 1, 1, scope=scope, empty_images="leave_out")
    for i in range(3):
        step(matcher, loss, batch, i)
    assert float(matcher.threshold) == pytest.approx(0.4) and float(loss.beta) == 1.0
    assert matcher.window.records.isnan().all() and loss.window.records.isnan().all()


def test_proposals_that_are_ignored_do_not_count():
    matcher, loss = components(1, 1, 1)
    rows = np.array([[0.9, 0.1, 0.1, 0], [0.8, 0.3, 0.3, 0], [0.1, 3, 3, 0]], np.float32)
    view = view_of_batch([rows], matcher)
    view.labeled[0][0].gt_classes[0] = -1
    for component in (matcher, loss):
        component.observe(view)
        component.end_iteration(0)
    assert float(matcher.threshold) == pytest.approx(0.8) and float(loss.beta) == pytest.approx(0.3)


def test_an_update_takes_effect_from_the_next_iteration_and_may_fall_again():
    rows = [np.array([[iou, error, error, 0]], np.float32) for iou, error in ((0.7, 0.2), (0.5, 0.6), (0.3, 3.0))]
    matcher, loss = components(1, 1, period=1)
    used = [step(matcher, loss, [image], i)[0] for i, image in enumerate(rows)]
    np.testing.assert_allclose(used, [(0.4, 1.0), (0.7, 0.2), (0.5, 0.6)], rtol=0, atol=1e-6)
    assert float(matcher.threshold) == pytest.approx(0.4) and float(loss.beta) == 1.0  # the bounds


# ------------------------------------------------------------------------------------- crowds and zero statistics


def crowd(num_gt=40, num=60, error=0.5):
    """An image of ``num_gt`` appended GT boxes and ``num`` proposals with this error."""
    proposals = np.tile(np.array([[0.6, error, error, 0]], np.float32), (num, 1))
    return np.concatenate([proposals, np.tile(np.array([[1, 0, 0, 1]], np.float32), (num_gt, 1))])


def test_crowds_leave_beta_as_it_is():
    matcher, loss = components(period=2)
    for i in range(6):
        step(matcher, loss, [crowd(), crowd()], i)
    assert float(loss.beta) == 1.0 and float(loss.last_statistic) == 0.0
    pred = torch.randn(5, 4, requires_grad=True)
    loss(pred, torch.zeros(5, 4)).sum().backward()
    assert pred.grad.isfinite().all()


def test_crowds_are_measured_without_the_appended_boxes():
    matcher, loss = components(period=2, count_appended_gt=False)
    for i in range(2):
        step(matcher, loss, [crowd(), crowd()], i)
    assert float(loss.beta) == pytest.approx(0.5) and float(matcher.threshold) == pytest.approx(0.6)


def test_zeros_can_be_kept_out_of_the_median():
    stream = [[crowd()], [crowd()], [crowd(num_gt=0, error=0.3)]]
    betas = []
    for record_zeros in (True, False):
        loss = DynamicSmoothL1(10, 3, record_zeros=record_zeros, bbox_reg_weights=WEIGHTS, num_classes=NUM_CLASSES)
        matcher, _ = components()
        for i, batch in enumerate(stream):
            step(matcher, loss, batch, i)
        betas.append(float(loss.beta))
    assert betas == [1.0, pytest.approx(0.3)]
