"""Starting ``train_net.py`` for every task that is not finished, some at a time, so that all of it can be resumed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence

from ..utils.errors import ConfigError
from .speed import SPEED_FILE
from .state import Task

__all__ = ["FAILED", "FINISHED", "Interrupted", "LOG", "execute", "last_lines"]

LOG = "output.log"
FINISHED, FAILED = "finished", "failed"
_SECONDS_BETWEEN_LOOKS = 0.2


class Interrupted(Exception):
    """Ctrl-C or SIGTERM came; all runs have been stopped, and left checkpoints."""


@dataclass
class _Started:
    task: Task
    process: subprocess.Popen
    lock: int
    since: float


def execute(tasks: Sequence[Task], jobs: int, say=print) -> Dict[Task, str]:
    """Run the tasks, ``jobs`` at a time; returns ``{task: "finished", or why it is not}``.

    Evaluations wait until all trainings are done. A failed run is told with the end of its log, and the others go on.
    Raises ``Interrupted`` after a signal, when the runs that were going have saved their checkpoints and ended.
    """
    results: Dict[Task, str] = {}
    with _sigterm_as_interrupt():
        for phase in ([t for t in tasks if not t.source], [t for t in tasks if t.source]):
            results.update({task: _not_to_be_started(task, results) for task in phase})
            for task in phase:
                if results[task] not in ("", FINISHED):
                    say(f"{task.label}: {results[task]}")
            results.update(_Pool([task for task in phase if not results[task]], jobs, say).run())
    return results


def _not_to_be_started(task: Task, results: Dict[Task, str]) -> str:
    try:
        if task.is_finished():
            return FINISHED
    except ConfigError as error:
        return f"{FAILED}: {error}"
    for needed in (task.source, *task.others) if task.source else ():
        if results.get(needed) != FINISHED:
            return f"{FAILED}: there are no weights to evaluate, see {needed.label}"
    return ""


class _Pool:
    """Processes of ``train_net.py``, each in a session of its own, so that a terminal's Ctrl-C is passed on once."""

    def __init__(self, tasks: List[Task], jobs: int, say):
        self.waiting, self.jobs, self.say = list(tasks), jobs, say
        self.total = len(tasks)
        self.running: List[_Started] = []
        self.results: Dict[Task, str] = {}

    def run(self) -> Dict[Task, str]:
        try:
            while self.waiting or self.running:
                while self.waiting and len(self.running) < self.jobs:
                    self._start(self.waiting.pop(0))
                self._collect()
                time.sleep(_SECONDS_BETWEEN_LOOKS if self.running else 0)
        except KeyboardInterrupt:
            self._stop()
            raise Interrupted from None
        return self.results

    def _start(self, task: Task) -> None:
        task.prepare()
        lock = _lock(task.folder)
        if lock is None:
            self._end(task, f"{FAILED}: another process is running it")
            return
        command = task.command()
        path = os.path.join(task.folder, LOG)
        with open(path, "a", encoding="utf-8") as log:
            log.write(f"$ {shlex.join(command)}\n")
            log.flush()
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, pass_fds=[lock],
                start_new_session=True, env=_environment(),
            )
        self.running.append(_Started(task, process, lock, time.time()))
        self.say(f"{task.label}: started, log in {path}")

    def _collect(self) -> None:
        for started in [s for s in self.running if s.process.poll() is not None]:
            self.running.remove(started)
            os.close(started.lock)
            self._end(started.task, _outcome(started.task, started.process.returncode), time.time() - started.since)

    def _end(self, task: Task, result: str, seconds: float = 0.0) -> None:
        self.results[task] = result
        self.say(f"{len(self.results)} of {self.total}, {seconds:.0f} s, {task.label}: {result}")

    def _stop(self) -> None:
        """Ask every run to save a checkpoint and end; a second Ctrl-C ends them at once."""
        self.say(f"Stopping {len(self.running)} run(s), which save a checkpoint first.")
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                for started in self.running:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(started.process.pid, number)
                while self.running:
                    self.running[0].process.wait()
                    os.close(self.running.pop(0).lock)
                return
            except KeyboardInterrupt:
                continue


def _outcome(task: Task, status: int) -> str:
    if status == 0:
        try:
            if task.is_finished():
                return FINISHED
        except ConfigError as error:
            return f"{FAILED}: {error}"
        return f"{FAILED}: it ended well, but left no results in {task.folder}"
    return f"{FAILED} with status {status}, see {os.path.join(task.folder, LOG)}\n{last_lines(task.folder)}"


def measure_speeds(tasks: Sequence[Task], say=print) -> List[Task]:
    """Measure what finished tasks cost (``speed.py``), one at a time; returns those for which that failed.

    A measurement that is newer than the task's weights is not repeated.
    """
    failed = []
    for task in tasks:
        path = os.path.join(task.folder, SPEED_FILE)
        if os.path.exists(path) and os.path.getmtime(path) >= os.path.getmtime(task.weights):
            continue
        command = [sys.executable, "-m", "d2_balanced.tables.speed", task.folder, "--weights", task.weights]
        result = subprocess.run(command, env=_environment(), capture_output=True, text=True)
        if result.returncode:
            failed.append(task)
        say(f"{task.label}: costs {(result.stderr if result.returncode else result.stdout).strip()[-2000:]}")
    return failed


def _environment() -> Dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}


def last_lines(folder: str, count: int = 6) -> str:
    """The end of a run's log, indented, without the command at its head."""
    with open(os.path.join(folder, LOG), encoding="utf-8", errors="replace") as log:
        lines = [line for line in log.read().splitlines() if line and not line.startswith("$ ")]
    return "\n".join(f"    {line[:500]}" for line in lines[-count:])


def _lock(folder: str) -> Optional[int]:
    """A file descriptor that holds the folder's lock as long as it, or a child's copy of it, is open; None if taken."""
    descriptor = os.open(os.path.join(folder, ".lock"), os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


@contextlib.contextmanager
def _sigterm_as_interrupt():
    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
