"""The state of Dynamic R-CNN's components: gradient accumulation, resume in mid-window, changed settings."""

import copy

import pytest
import torch
from detectron2.structures import Boxes, Instances
from fvcore.common.checkpoint import Checkpointer
from torch._subclasses.fake_tensor import FakeTensorMode

from dynamic_streams import assert_same_state, components, random_stream, scalar_batches, step, view_of_batch
from reference import dynamic as reference
from roi_heads_tools import view_of


@pytest.mark.parametrize("scope", ["batch", "image"])
def test_forward_passes_of_one_iteration_are_one_batch(scope):
    whole, parts = components(4, 3, 3, scope=scope), components(4, 3, 3, scope=scope)
    for i, batch in enumerate(random_stream(5, 9, images=4, without_gt=0)):
        step(*whole, batch, i)
        for micro_batch in (batch[:1], batch[1:]):
            view = view_of_batch(micro_batch, parts[0])
            for component in parts:
                component.observe(view)
        for component in parts:
            component.end_iteration(i)
    for one, other in zip(whole, parts):
        assert_same_state(one, other)
    assert float(whole[0].threshold) > 0.41


def test_passes_that_train_nothing_are_not_measured():
    batch = random_stream(0, 1, without_gt=0)[0]
    for component in components(1, 1, 1):
        view = view_of_batch(batch, components()[0])
        with torch.no_grad():
            component.observe(view)
        component.eval().observe(view)
        before = copy.deepcopy(component.state_dict())
        component.end_iteration(1)
        for key, value in component.state_dict().items():
            torch.testing.assert_close(value, before[key], rtol=0, atol=0, equal_nan=True)


def test_a_trainer_that_never_ends_iterations_is_told():
    batch = random_stream(0, 1, without_gt=0)[0]
    matcher, _ = components()
    view = view_of_batch(batch, matcher)
    with pytest.raises(RuntimeError, match=r"DynamicMatcher saw 256 forward passes, and end_iteration\(\) was never"):
        for _ in range(300):
            matcher.observe(view)


@pytest.mark.parametrize("scope", ["batch", "image"])
def test_nothing_in_the_step_waits_for_a_value(scope):
    """Tensors without data: reading a value, or a size that depends on one, raises."""
    with FakeTensorMode():
        boxes, ones = torch.rand(50, 4), torch.ones(50, dtype=torch.int64)
        image = Instances((9, 9), proposal_boxes=Boxes(boxes), gt_boxes=Boxes(boxes), matched_ious=boxes[:, 0])
        image.gt_classes, image.is_gt = ones, ones == 1
        for component in components(3, 2, 2, scope=scope, count_appended_gt=False):
            for i in range(4):
                component.observe(view_of([image, image], [image, image]))
                assert all(value.shape == () for value in component.end_iteration(i).values())


@pytest.mark.parametrize("scope", ["batch", "image"])
@pytest.mark.parametrize("stop", [1, 4, 7, 11, 13])
def test_resume_in_mid_window_is_bit_exact(scope, stop, tmp_path):
    stream = random_stream(3, 16)
    straight, first = components(4, 3, 5, scope=scope), components(4, 3, 5, scope=scope)
    used = [step(*straight, batch, i)[0] for i, batch in enumerate(stream)]
    for i, batch in enumerate(stream[:stop]):
        step(*first, batch, i)
    torch.save([component.state_dict() for component in first], tmp_path / "state.pth")
    resumed = components(4, 3, 5, scope=scope)
    for component, state in zip(resumed, torch.load(tmp_path / "state.pth", weights_only=True)):
        component.load_state_dict(state)
    assert [step(*resumed, batch, i)[0] for i, batch in enumerate(stream) if i >= stop] == used[stop:]
    for one, other in zip(straight, resumed):
        assert_same_state(one, other)
    assert len(set(used)) > 2  # the values did move


def test_all_state_is_in_buffers_of_fixed_shape():
    matcher, loss = components(4, 3, 5)
    shapes = {key: value.shape for c in (matcher, loss) for key, value in c.state_dict().items()}
    for i, batch in enumerate(random_stream(3, 23)):
        step(matcher, loss, batch, i)
    assert {key: value.shape for c in (matcher, loss) for key, value in c.state_dict().items()} == shapes
    assert shapes["window.records"] == (10, 1)


def test_training_from_the_start_forgets_the_window_of_a_checkpoint():
    fresh, stream = components(4, 3, 5), random_stream(3, 5)
    tuned = components(4, 3, 5)
    for i, batch in enumerate(random_stream(9, 3)):
        step(*tuned, batch, i)
    for i, batch in enumerate(stream):
        step(*fresh, batch, i)
        step(*tuned, batch, i)
    for one, other in zip(fresh, tuned):
        assert_same_state(one, other)


def test_another_period_starts_an_empty_window_and_keeps_the_value(caplog):
    matcher, loss = components(4, 3, 5)
    for i, batch in enumerate(random_stream(3, 8)):
        step(matcher, loss, batch, i)
    for old, new in zip((matcher, loss), components(4, 3, 7)):
        new.load_state_dict(old.state_dict())
        assert new.window.count == 0 and new.window.records.isnan().all()
    assert torch.equal(components(4, 3, 5)[0].threshold, torch.tensor(0.4)) and matcher.threshold > 0.41
    assert "window.records: the checkpoint has a window of (10, 1)" in caplog.text and "(14, 1)" in caplog.text


@pytest.mark.parametrize("put_off", [1, 2, 3, 5])
def test_an_update_is_put_off_where_its_batch_recorded_nothing_and_all_since_the_last_one_counts(put_off):
    """As in ``official_sane`` of golden file 5: however many updates in a row are put off, no record is lost."""
    stream = random_stream(4, 3 * (put_off + 2), without_gt=0, zeros=0)
    skipped = [3 * k + 2 for k in range(put_off)]
    for i in skipped:
        stream[i] = [None, stream[i][1]]
    straight, first = components(4, 3, 3), components(4, 3, 3)
    used = [step(*straight, batch, i)[0] for i, batch in enumerate(stream)]
    end = 3 * (put_off + 1)
    assert set(used[:end]) == {used[0]} and len(set(used)) == 2
    scalar = [batch for i, batch in enumerate(scalar_batches(stream[:end])) if i not in skipped]
    ious = [reference.iou_statistic(batch, 4, "batch") for batch in scalar]
    errors = [reference.error_statistic(batch, 3, "batch", 0.4) for batch in scalar]
    assert len(ious) == 2 * put_off + 3
    assert used[end] == pytest.approx((sum(ious) / len(ious), min(reference.upper_median(errors), 1.0)))
    for i, batch in enumerate(stream):  # stopped and resumed after every iteration
        step(*first, batch, i)
        states, first = [component.state_dict() for component in first], components(4, 3, 3)
        for component, state in zip(first, states):
            component.load_state_dict(state)
    for one, other in zip(straight, first):
        assert_same_state(one, other)
    assert {key: value.shape for key, value in first[0].state_dict().items()}["window.records"] == (6, 1)
    assert "window.older" not in first[0].state_dict()


def test_a_checkpoint_of_many_put_off_updates_resumes_through_the_checkpointer(tmp_path):
    """fvcore drops tensors of another shape: what has no room in the window is a buffer of its own."""
    stream = random_stream(4, 8, without_gt=0)
    for i in (1, 3, 5):
        stream[i] = [None]
    straight, first, resumed = (components(4, 3, 2) for _ in range(3))
    for i, batch in enumerate(stream):
        step(*straight, batch, i)
    for i, batch in enumerate(stream[:7]):
        step(*first, batch, i)
    assert first[0].window.older.shape == (4, 1)
    Checkpointer(first[0], str(tmp_path)).save("matcher")
    incompatible = Checkpointer(resumed[0]).load(str(tmp_path / "matcher.pth"))
    assert not incompatible
    step(resumed[0], components(4, 3, 2)[1], stream[7], 7)
    assert_same_state(straight[0], resumed[0])
    other = components(4, 3, 7)[0]
    other.load_state_dict(first[0].state_dict())
    assert other.window.older is None and other.window.since_update().isnan().all()
