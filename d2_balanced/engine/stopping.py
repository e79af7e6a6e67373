"""Ending early when a signal asks for it: which signals, what a second one does, and an evaluation that stops."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import Callable, Dict, Iterator, Tuple

from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from detectron2.utils import comm

from ..utils.worker_signals import outlive_sigterm

__all__ = ["STOP_SIGNALS", "EvaluationStopped", "StopRequests", "end_at_once", "stoppable"]

STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)
SAME_REQUEST = 0.5  # seconds; a terminal and a launcher both send Ctrl-C, a scheduler sends to the parent and to us


class StopRequests:
    """Passes the first signal on; what comes within half a second is the same request, a later one ends the process.

    Args:
        ask: called once, in the main thread, with the signal's name.
        promise: what is said on stderr will happen now.
    """

    def __init__(self, ask: Callable[[str], None], promise: str):
        self._ask = ask
        self._promise = promise
        self._previous: Dict[int, object] = {}
        self._owner = os.getpid()
        self._asked = False

    def install(self) -> None:
        """Handle the signals. One that is ignored (SIGHUP under nohup) stays so, and Ctrl-C is always handled."""
        numbers = [n for n in STOP_SIGNALS if n == signal.SIGINT or signal.getsignal(n) != signal.SIG_IGN]
        try:
            self._previous = {number: signal.signal(number, self._handle) for number in numbers}
        except ValueError:  # not the main thread: whoever started the thread handles signals
            self._previous = {}

    def restore(self) -> None:
        """Give the signals back to who had them."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _handle(self, number, frame):
        if os.getpid() != self._owner:  # a child process that inherited this handler
            if number == signal.SIGTERM:  # from its parent; data workers have a handler of their own for it
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        if self._asked:
            return
        self._asked = True
        name = signal.Signals(number).name
        # Not by the logger: the signal may have come while it was writing, and its stream cannot be entered twice.
        os.write(2, f"{name}: {self._promise}. Send it again to stop at once.\n".encode())
        self._ask(name)
        time.sleep(SAME_REQUEST)
        for number in self._previous:  # by the system: Python's handlers wait for the end of a call of C++
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def end_at_once(message: str) -> Iterator[None]:
    """While there is nothing to save: a signal prints its name and ``message``, and exits with 128 + its number."""

    def stop(name: str) -> None:
        requests.restore()
        sys.exit(128 + getattr(signal, name))

    requests = StopRequests(stop, message)
    requests.install()
    try:
        yield
    finally:
        requests.restore()


class EvaluationStopped(Exception):
    """An evaluation was ended before its last image; all processes raise it together."""


def stoppable(loader, evaluator, wanted: Callable[[], bool]) -> Tuple[object, DatasetEvaluator]:
    """Test loader and evaluator of which the first ends, and the second raises, once ``wanted()`` in any process.

    Processes have to agree, and have different numbers of images: each ends its own loop, and they ask one another
    before they exchange what they found. Raises ``EvaluationStopped`` from ``evaluator.evaluate()``.
    """
    if getattr(loader, "worker_init_fn", False) is None:
        loader.worker_init_fn = outlive_sigterm
    if evaluator is None or isinstance(evaluator, (list, tuple)):
        evaluator = DatasetEvaluators(list(evaluator or ()))
    return _UntilWanted(loader, wanted), _UnlessWanted(evaluator, wanted)


class _UntilWanted:
    def __init__(self, loader, wanted):
        self._loader = loader
        self._wanted = wanted

    def __len__(self):
        return len(self._loader)

    def __iter__(self):
        for inputs in self._loader:
            if self._wanted():
                return
            yield inputs


class _UnlessWanted(DatasetEvaluator):
    def __init__(self, evaluator, wanted):
        self._evaluator = evaluator
        self._wanted = wanted

    def reset(self):
        self._evaluator.reset()

    def process(self, inputs, outputs):
        self._evaluator.process(inputs, outputs)

    def evaluate(self):
        if any(comm.all_gather(bool(self._wanted()))):
            raise EvaluationStopped("the evaluation was stopped before its last image")
        return self._evaluator.evaluate()
