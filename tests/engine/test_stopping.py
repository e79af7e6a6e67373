"""Signals: which ones, what a second one does, and evaluations that stop; with a run's own hooks and processes."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest
from d2_balanced.engine import stopping
from d2_balanced.engine.hooks import Checkpoints, Evaluate, StopOnSignal
from d2_balanced.engine.stopping import EvaluationStopped, end_at_once, stoppable
from d2_balanced.utils.worker_signals import outlive_sigterm
from detectron2.engine import HookBase
from detectron2.evaluation import DatasetEvaluator
from engine_toys import toy_trainer
from paths import ROOT
from torch.utils.data import DataLoader

NAMES = ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(stopping, "SAME_REQUEST", 0.01)


@pytest.fixture(autouse=True)
def no_signal_is_ignored():
    """As it is where the tests are started under nohup."""
    before = {name: signal.getsignal(getattr(signal, name)) for name in NAMES}
    for name, handler in before.items():
        if handler == signal.SIG_IGN:
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    yield
    for name, handler in before.items():
        signal.signal(getattr(signal, name), handler)


class Saved:
    """In place of a checkpointer: the names that were saved."""

    def __init__(self):
        self.names = []

    def save(self, name, iteration):
        self.names.append(name)


class Kill(HookBase):
    def __init__(self, name, iteration=3):
        self.name, self.iteration = name, iteration

    def before_step(self):
        if self.trainer.iter == self.iteration:
            os.kill(os.getpid(), getattr(signal, self.name))


def saving(trainer, period=100):
    saved = Saved()
    saved.model = trainer.model
    return saved, Checkpoints(saved, period)


@pytest.mark.parametrize("name", NAMES)
def test_every_signal_leads_to_a_checkpoint_and_gives_its_handler_back(name, capfd):
    before = [signal.getsignal(getattr(signal, name)) for name in NAMES]
    trainer = toy_trainer([StopOnSignal(), Kill(name)])
    saved, checkpoints = saving(trainer)
    trainer.register_hooks([checkpoints])
    trainer.train(0, 100)
    assert (trainer.stop_reason, trainer.interrupted, saved.names) == (name, True, ["model_0000003"])
    assert [signal.getsignal(getattr(signal, name)) for name in NAMES] == before
    assert f"{name}: stopping, with a checkpoint. Send it again to stop at once." in capfd.readouterr().err


def test_under_nohup_the_end_of_the_terminal_changes_nothing():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        trainer = toy_trainer([StopOnSignal(), Kill("SIGHUP")])
        trainer.train(0, 6)
        assert (trainer.last_finished_iter, trainer.stop_reason) == (5, "")
    finally:
        signal.signal(signal.SIGHUP, before)


class Images(DatasetEvaluator):
    """Sends a signal at the second of its images; counts, and fails if it is asked for a result of a part."""

    def __init__(self, name):
        self.name, self.seen = name, 0

    def reset(self):
        pass

    def process(self, inputs, outputs):
        self.seen += 1
        if self.seen == 2:
            os.kill(os.getpid(), getattr(signal, self.name))

    def evaluate(self):
        raise AssertionError("metrics of a part of the images")


@pytest.mark.parametrize("max_iter, saved_as", [(50, "model_0000003"), (4, "model_final")])
def test_an_evaluation_stops_at_the_next_image_and_the_checkpoint_is_there(max_iter, saved_as):
    images = Images("SIGUSR1")

    def evaluate():
        loader, evaluator = stoppable(range(1000), images, lambda: trainer.stop_wanted)
        assert len(loader) == 1000
        evaluator.reset()
        for image in loader:
            evaluator.process([image], None)
        return evaluator.evaluate()

    trainer = toy_trainer([StopOnSignal()])
    saved, checkpoints = saving(trainer)
    trainer.register_hooks([checkpoints, Evaluate(4, evaluate)])
    trainer.train(0, max_iter)
    assert images.seen == 2 and trainer.evaluation == (-1, {})
    assert (trainer.last_finished_iter, trainer.interrupted, trainer.stop_reason) == (3, True, "SIGUSR1")
    assert saved.names == [saved_as]


def test_what_is_not_stopped_evaluates_as_without():
    class Result(DatasetEvaluator):
        def evaluate(self):
            return {"bbox": {"AP": 1.0}}

    loader, evaluator = stoppable([1, 2, 3], [Result()], lambda: False)
    assert list(loader) == [1, 2, 3] and evaluator.evaluate() == {"bbox": {"AP": 1.0}}
    with pytest.raises(EvaluationStopped):
        stoppable([], None, lambda: True)[1].evaluate()


def test_where_all_is_saved_a_signal_ends_with_its_status(capfd):
    with pytest.raises(SystemExit) as stop, end_at_once("the run is complete"):
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(5)
    assert stop.value.code == 128 + signal.SIGHUP and "SIGHUP: the run is complete" in capfd.readouterr().err


SECOND = """
import os, signal, sys, time
import d2_balanced
from d2_balanced.engine import stopping
stopping.SAME_REQUEST = 0.2
requests = stopping.StopRequests(lambda name: print(name, flush=True), "stopping")
requests.install()
os.kill(os.getpid(), signal.SIGINT)
print("handled", flush=True)
time.sleep(60)
"""


def test_the_second_signal_ends_at_once_but_not_an_echo_of_the_first():
    run = subprocess.Popen([sys.executable, "-c", SECOND], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert run.stdout.readline() == "SIGINT\n"
    run.send_signal(signal.SIGTERM)  # what a launcher makes of the terminal's Ctrl-C
    assert run.stdout.readline() == "handled\n"
    run.send_signal(signal.SIGTERM)
    assert run.wait(30) == -signal.SIGTERM and run.stdout.read() == ""


class Workers:
    """A data set whose first item signals its own worker."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if index == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return index


def wait_for_ever(_=0):
    outlive_sigterm()
    time.sleep(600)


def test_a_data_worker_obeys_its_parent():
    worker = multiprocessing.get_context("fork").Process(target=wait_for_ever)
    worker.start()
    time.sleep(0.5)
    worker.terminate()
    worker.join(60)
    assert worker.exitcode in (0, -signal.SIGTERM)


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="a signal does not tell here who sent it")
def test_a_data_worker_outlives_the_schedulers_sigterm():
    loader = DataLoader(Workers(), num_workers=1, batch_size=1, worker_init_fn=outlive_sigterm)
    assert [int(item) for item in loader] == [0, 1, 2, 3]
    plain = DataLoader(Workers(), num_workers=1)
    assert stoppable(plain, None, lambda: False)[0]._loader.worker_init_fn is outlive_sigterm
