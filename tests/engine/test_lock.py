"""One run at a time in a folder: refused with the holder's name, and free again however the holder ended."""

import errno
import json
import os
import platform
import signal
import subprocess
import sys

import pytest
from d2_balanced.engine import lock
from d2_balanced.engine.lock import LOCK, hold_folder
from d2_balanced.utils.errors import OutputError
from paths import ROOT

HOLDER = """
import sys
import d2_balanced
from d2_balanced.engine.lock import hold_folder
with hold_folder(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture()
def holder(tmp_path):
    """A process that holds ``tmp_path``."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    run = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert run.stdout.readline() == "held\n"
    yield run
    run.kill()
    run.communicate()


def take(folder):
    with hold_folder(str(folder)):
        return True


def test_the_second_is_refused_while_the_first_lives_and_not_after_its_sudden_death(holder, tmp_path):
    with pytest.raises(OutputError, match=f"in use by process {holder.pid} on {platform.node()}, since .*--output-dir"):
        take(tmp_path)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / LOCK).exists() and take(tmp_path) and not (tmp_path / LOCK).exists()


def test_an_error_gives_the_folder_back(tmp_path):
    with pytest.raises(ZeroDivisionError), hold_folder(str(tmp_path / "new")):
        assert json.loads((tmp_path / "new" / LOCK).read_text())["process"] == os.getpid()
        raise ZeroDivisionError
    assert take(tmp_path / "new") and os.listdir(tmp_path / "new") == []


@pytest.mark.parametrize("host, process, refused", [
    (platform.node(), os.getppid(), True), (platform.node(), 2**22 + 1, False), ("elsewhere", 2**22 + 1, True),
])  # fmt: skip
def test_without_locks_the_note_is_relied_on(host, process, refused, tmp_path, monkeypatch):
    def no_locks(*args):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(lock.fcntl, "lockf", no_locks)
    (tmp_path / LOCK).write_text(json.dumps({"host": host, "process": process, "start": "2026-01-01 00:00:00"}))
    if refused:
        with pytest.raises(OutputError, match=f"in use by process {process} on {host}.*is gone, delete .*{LOCK}"):
            take(tmp_path)
        assert (tmp_path / LOCK).exists()
    else:
        assert take(tmp_path)


@pytest.mark.parametrize("note", ["", "[1]", '{"host": 3'])
def test_a_damaged_note_without_a_holder_is_no_obstacle(note, tmp_path):
    (tmp_path / LOCK).write_text(note)
    assert take(tmp_path)


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_stands_in_the_place_of_the_lock_is_told(kind, tmp_path):
    path = tmp_path / LOCK
    path.mkdir() if kind == "folder" else path.symlink_to("nowhere/at/all")
    with pytest.raises(OutputError, match="run.lock' cannot be opened: .* Delete it."), hold_folder(str(tmp_path)):
        pass
