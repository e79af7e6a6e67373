"""A process killed with SIGKILL while it writes checkpoints leaves a folder that can be resumed from, every time."""

import itertools
import os
import signal
import time

import torch
from torch import nn

from d2_balanced.engine.checkpoint import BalancedCheckpointer

TRIES = 20


def write_for_ever(folder, model, started):
    """Overwrite one checkpoint again and again; all weights of a version are equal to its iteration."""
    checkpointer = BalancedCheckpointer(model, folder, max_to_keep=2)
    for iteration in itertools.count():
        with torch.no_grad():
            model.weight.fill_(iteration)
        checkpointer.save("model_final" if iteration % 2 else f"model_{iteration:07d}", iteration=iteration)
        os.write(started, b".")


def fork_and_kill(folder, model, delay):
    """Let a child write into ``folder``; kill it ``delay`` seconds after its third checkpoint."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            write_for_ever(folder, model, writer)
        finally:
            os._exit(1)
    for _ in range(3):
        os.read(reader, 1)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reader), os.close(writer)


def test_killed_twenty_times_and_loadable_twenty_times(tmp_path):
    interrupted = 0
    for attempt in range(TRIES):
        folder = str(tmp_path / str(attempt))
        os.makedirs(folder)
        model = nn.Linear(1000, 500)
        fork_and_kill(folder, model, delay=0.0007 * attempt)
        interrupted += any(name.endswith(".unfinished") for name in os.listdir(folder))

        checkpointer = BalancedCheckpointer(model, folder)
        tagged = checkpointer.get_checkpoint_file()
        iteration = checkpointer.resume_or_load("", resume=True)["iteration"]
        assert torch.load(tagged, weights_only=True)["iteration"] == iteration >= 2  # no fall-back was needed
        assert (model.weight == iteration).all()
    assert interrupted > 0, "no kill came in the middle of a write: the test shows nothing"
