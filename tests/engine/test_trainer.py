"""The training loop: one step, what it logs, micro-batches, stops, errors, and the state it saves."""

import copy

import pytest
import torch
from detectron2.engine import HookBase, SimpleTrainer
from engine_toys import ToyLoader, ToyModel, toy_trainer

from d2_balanced.engine.hooks import Checkpoints
from d2_balanced.engine.nonfinite import NonFiniteLossError
from d2_balanced.engine.precision import FullPrecision, MixedPrecision, build_precision
from d2_balanced.engine.step_losses import split_batch
from d2_balanced.engine.trainer import BalancedTrainer


class Recorder(HookBase):
    """Notes the order in which the trainer calls."""

    def __init__(self):
        self.calls = []

    def before_step(self):
        self.calls.append("before_step")

    def after_backward(self):
        self.calls.append("after_backward")
        self.gradient = self.trainer.model.weight.grad.clone()
        self.weight = self.trainer.model.weight.detach().clone()

    def after_step(self):
        self.calls.append("after_step")

    def after_train(self):
        self.calls.append("after_train")


class StopAfter(HookBase):
    """Interrupts training as a signal would, so that ``done`` iterations are finished."""

    def __init__(self, done):
        self.done = done

    def before_step(self):
        if self.trainer.iter + 1 == self.done:
            self.trainer.request_stop("the test")


def test_without_options_it_is_detectron2s_simple_trainer():
    ours, theirs = ToyModel(), ToyModel()
    trainer = toy_trainer(model=ours)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
    simple = SimpleTrainer(theirs, ToyLoader().iter_from(0), optimizer)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.5)
    simple.register_hooks([trainer._hooks[0].__class__(0), trainer._hooks[-1].__class__(optimizer, scheduler)])
    trainer.train(0, 7)
    simple.train(0, 7)
    assert torch.equal(ours.weight, theirs.weight)
    for name in ("total_loss", "loss_a", "loss_b", "lr"):
        want = [value for value, _ in simple.storage.history(name).values()]
        assert [value for value, _ in trainer.storage.history(name).values()] == pytest.approx(want, rel=1e-6)


def test_hooks_see_the_gradient_before_the_weights_move():
    recorder = Recorder()
    trainer = toy_trainer([recorder])
    start = trainer.model.weight.detach().clone()
    trainer.train(0, 1)
    assert recorder.calls == ["before_step", "after_backward", "after_step", "after_train"]
    assert torch.equal(recorder.weight, start)
    torch.testing.assert_close(trainer.model.weight.detach(), start - 0.1 * recorder.gradient)


class NoMask(ToyModel):
    """Without random numbers, so that cutting the batch changes rounding only."""

    def forward(self, images):
        error = torch.stack([image["x"] for image in images]) @ self.weight - 1
        return {"loss_a": (error**2).mean()}


def test_accumulation_is_the_same_step_and_calls_hooks_once():
    recorder = Recorder()
    whole, parts = toy_trainer(model=NoMask()), toy_trainer([recorder], model=NoMask(), accumulate=4)
    whole.train(0, 5)
    parts.train(0, 5)
    assert recorder.calls.count("after_backward") == 5
    torch.testing.assert_close(parts.model.weight, whole.model.weight, rtol=1e-5, atol=1e-6)
    ours = [v for v, _ in parts.storage.history("total_loss").values()]
    assert ours == pytest.approx([v for v, _ in whole.storage.history("total_loss").values()], rel=1e-5)


def test_micro_batches_are_equal_and_in_order():
    assert split_batch([1, 2, 3, 4, 5, 6], 3) == [[1, 2], [3, 4], [5, 6]]
    for size, parts in ((6, 4), (2, 4), (0, 1)):
        with pytest.raises(ValueError, match=f"accumulate is {parts}, this batch has {size} images"):
            split_batch(list(range(size)), parts)
    with pytest.raises(ValueError, match="BalancedTrainer: accumulate must be 1 or more, got 0"):
        toy_trainer(accumulate=0)


def test_loss_not_finite_names_everything_and_keeps_the_weights():
    trainer = toy_trainer([StopAfter(100)], loader=ToyLoader(poison=3))
    good = toy_trainer()
    good.train(0, 3)
    with pytest.raises(NonFiniteLossError) as error:
        trainer.train(0, 10)
    message = str(error.value)
    for part in ("or NaN: iteration 3, learning rate 0.05", "image_3_1.png (image id 301)", "loss_a = nan"):
        assert part in message
    assert error.value.details["images"][0] == "image_3_0.png (image id 300)"
    assert torch.equal(trainer.model.weight, good.model.weight)
    assert not trainer.completed


class FakeCheckpointer:
    """Keeps what would be written."""

    def __init__(self, trainer):
        self.model, self.trainer, self.saved = trainer.model, trainer, {}

    def save(self, name, **extra):
        content = {"model": self.model.state_dict(), "trainer": self.trainer.state_dict(), **extra}
        self.saved[name] = copy.deepcopy(content)


def with_checkpoints(trainer, period):
    checkpointer = FakeCheckpointer(trainer)
    trainer.register_hooks([Checkpoints(checkpointer, period)])
    return checkpointer


def test_nothing_is_saved_after_a_loss_that_is_not_finite():
    trainer = toy_trainer(loader=ToyLoader(poison=5))
    checkpointer = with_checkpoints(trainer, 2)
    with pytest.raises(NonFiniteLossError):
        trainer.train(0, 10)
    assert list(checkpointer.saved) == ["model_0000001", "model_0000003"]


def test_weights_that_are_not_finite_are_not_saved():
    class Break(HookBase):
        def after_step(self):
            if self.trainer.iter == 3:
                with torch.no_grad():
                    self.trainer.model.weight[0] = float("inf")

    trainer = toy_trainer([Break()])
    checkpointer = with_checkpoints(trainer, 2)
    with pytest.raises(FloatingPointError, match="weight is not finite after iteration 3.*model_0000003.pth was not"):
        trainer.train(0, 10)
    assert list(checkpointer.saved) == ["model_0000001"]


@pytest.mark.parametrize("done", [1, 4, 7])
def test_an_interruption_saves_a_checkpoint_that_continues_exactly(done):
    straight = toy_trainer()
    straight.train(0, 10)
    first = toy_trainer([StopAfter(done)])
    checkpointer = with_checkpoints(first, 100)
    first.train(0, 10)
    assert first.stop_reason == "the test" and first.last_finished_iter == done - 1
    (saved,) = checkpointer.saved.values()
    assert list(checkpointer.saved) == [f"model_{done - 1:07d}"] and saved["iteration"] == done - 1

    second = toy_trainer()
    second.model.load_state_dict(saved["model"])
    second.load_state_dict(saved["trainer"])
    second.train(saved["iteration"] + 1, 10)
    assert torch.equal(second.model.weight, straight.model.weight)
    state, want = (t.optimizer.state_dict()["state"][0]["momentum_buffer"] for t in (second, straight))
    assert torch.equal(state, want)
    for name in ("total_loss", "lr"):
        assert second.storage.history(name).values() == straight.storage.history(name).values()


def test_a_stop_in_the_last_iteration_is_the_end():
    trainer = toy_trainer([StopAfter(5)])
    checkpointer = with_checkpoints(trainer, 100)
    trainer.train(0, 5)
    assert list(checkpointer.saved) == ["model_final"] and not trainer.interrupted and not trainer.stop_reason


def test_final_checkpoint_and_a_run_that_is_done():
    trainer = toy_trainer()
    checkpointer = with_checkpoints(trainer, 4)
    trainer.train(0, 8)
    assert list(checkpointer.saved) == ["model_0000003", "model_final"]
    with pytest.raises(ValueError, match="8 iterations are done, and the last is number 8"):
        trainer.train(8, 8)


class Counter(HookBase):
    def __init__(self, value=0):
        self.value = value

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def test_two_hooks_of_one_class_keep_their_own_state(caplog):
    saved = toy_trainer([Counter(3), Counter(5)]).state_dict()
    first, second = Counter(), Counter()
    trainer = toy_trainer([first, second])
    trainer.load_state_dict(saved)
    assert (first.value, second.value) == (3, 5)
    toy_trainer([Counter()]).load_state_dict(saved)
    assert "Counter#2" in caplog.text


class Normalised(ToyModel):
    """Keeps a moving average in a plain attribute, as detectron2's RetinaNet does."""

    def forward(self, images):
        losses = super().forward(images)
        self.loss_normalizer = 0.9 * getattr(self, "loss_normalizer", 100.0) + 0.1 * len(images)
        return {name: loss / self.loss_normalizer for name, loss in losses.items()}


def test_a_plain_attribute_of_the_model_is_saved():
    trainer = toy_trainer(model=torch.nn.Sequential(Normalised()))
    trainer.train(0, 3)
    trainer.collect_state()
    other = toy_trainer(model=torch.nn.Sequential(Normalised()))
    other.load_state_dict(trainer.state_dict())
    expected = pytest.approx(0.9**3 * 100 + 0.4 * (1 + 0.9 + 0.81))
    assert other.model[0].loss_normalizer == trainer.model[0].loss_normalizer == expected


def test_mixed_precision_on_the_cpu_is_bfloat16_and_unscaled():
    seen = []

    class Linear(ToyModel):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def forward(self, images):
            out = self.layer(torch.stack([image["x"] for image in images]))
            seen.append(out.dtype)
            return {"loss": (out.float() ** 2).mean() + (self.weight**2).sum()}

    trainer = toy_trainer(model=Linear(), precision=build_precision(True, torch.device("cpu")))
    trainer.train(0, 2)
    assert seen == [torch.bfloat16] * 2 and trainer.model.layer.weight.dtype == torch.float32
    with pytest.raises(ValueError, match="device_type is one of .*, got 'mps'"):
        MixedPrecision("mps")


def scaled_trainer(hooks=(), scale=1024.0):
    """Trains with fp16's loss scaling, as on CUDA, but in full precision."""
    if not hasattr(torch.amp, "GradScaler"):
        pytest.skip("a scaler for the CPU came with torch 2.3")
    precision = MixedPrecision("cpu")
    precision.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=2)
    precision.autocast = FullPrecision().autocast
    return toy_trainer(hooks, precision=precision)


def test_scaled_gradients_are_unscaled_for_hooks_and_the_scale_is_saved():
    scaled, unscaled = Recorder(), Recorder()
    trainer, plain = scaled_trainer([scaled]), toy_trainer([unscaled])
    trainer.train(0, 3)
    plain.train(0, 3)
    torch.testing.assert_close(scaled.gradient, unscaled.gradient)
    torch.testing.assert_close(trainer.model.weight, plain.model.weight)
    other = scaled_trainer()
    other.load_state_dict(trainer.state_dict())
    assert other.precision.scaler.get_scale() == trainer.precision.scaler.get_scale() == 2048.0


def test_a_step_whose_gradients_overflow_is_skipped():
    trainer = scaled_trainer(scale=3e38)
    start = trainer.model.weight.detach().clone()
    trainer.train(0, 1)
    assert torch.equal(trainer.model.weight, start) and trainer.precision.scaler.get_scale() == pytest.approx(1.5e38)


def test_a_loader_that_cannot_start_anywhere_is_said(caplog):
    trainer = toy_trainer()
    plain = BalancedTrainer(trainer.model, list(zip(range(5), ToyLoader().iter_from(0))), trainer.optimizer)
    plain.data_loader = [batch for _, batch in plain.data_loader]
    plain.train(2, 4)
    assert "list cannot start at a given batch" in caplog.text
