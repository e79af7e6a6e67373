"""What ``tools/install.sh`` chooses and does, with stand-ins for Python and pip; nothing is downloaded."""

import os
import shutil
import subprocess
import sys

import pytest
from paths import ROOT

from d2_balanced import doctor

# An interpreter whose pip only writes down what it is asked for. BARE hides everything that is installed.
STAND_IN = """#!/bin/sh
case "$1 $2" in
"-m pip") echo "$@" >> "{log}"; exit ${{PIP_STATUS:-0}} ;;
"-m venv") mkdir -p "$3/bin" && cp "{bare}" "$3/bin/python"; exit ;;
"-m d2_balanced.doctor") exit 0 ;;
esac
exec "{real}" {flags} "$@"
"""


class Checkout:
    """A copy of what the script reads, with two interpreters: one that has detectron2, one that has nothing."""

    def __init__(self, folder):
        self.root, self.log = folder / "checkout", folder / "pip.log"
        self.log.touch()
        for path in ("tools/install.sh", "setup.py", "requirements"):
            source, target = os.path.join(ROOT, path), self.root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if os.path.isdir(source) else shutil.copy)(source, target)
        self.full = self.interpreter(folder / "full", flags="")
        self.bare = self.interpreter(folder / "bare", flags="-I -S")

    def interpreter(self, environment, flags):
        python = environment / "bin" / "python"
        python.parent.mkdir(parents=True)
        bare = environment.parent / "bare" / "bin" / "python"
        python.write_text(STAND_IN.format(log=self.log, bare=bare, real=sys.executable, flags=flags))
        python.chmod(0o755)
        return python

    def run(self, *arguments, **variables):
        inherited = {k: v for k, v in os.environ.items() if k not in ("VENV", "PYTHON", "VIRTUAL_ENV", "CONDA_PREFIX")}
        environment = {**inherited, "PYTHONPATH": ROOT, **{k: str(v) for k, v in variables.items()}}
        return subprocess.run([str(self.root / "tools/install.sh"), *arguments], env=environment, cwd="/",
                              capture_output=True, text=True, timeout=120)

    def which(self, **variables):
        return self.run("--which", **variables).stdout.strip()

    def asked_of_pip(self):
        return self.log.read_text().splitlines()


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


def test_the_choice_of_environment(checkout):
    own = str(checkout.root / ".venv/bin/python")
    full, bare = checkout.full.parent.parent, checkout.bare.parent.parent
    assert checkout.which() == own
    assert checkout.which(VIRTUAL_ENV=full) == str(checkout.full)
    assert checkout.which(CONDA_PREFIX=full) == str(checkout.full)
    assert checkout.which(VIRTUAL_ENV=bare) == own, "an activated environment without detectron2 is left alone"
    assert checkout.which(PYTHON=checkout.full) == str(checkout.full)
    assert checkout.which(PYTHON=checkout.bare) == own
    assert checkout.which(VENV="/x", PYTHON=checkout.full, VIRTUAL_ENV=full) == "/x/bin/python"


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the pinned versions are for Python 3.11")
def test_a_new_environment_gets_everything_pinned(checkout):
    result = checkout.run(PYTHON=checkout.bare)
    assert result.returncode == 0, result.stderr
    tools, torch, detectron2, package = checkout.asked_of_pip()
    assert "requirements/build.txt" in tools
    assert "-c requirements/constraints.txt -r requirements/torch.txt" in torch
    assert "--no-deps --use-pep517 --no-build-isolation -r requirements/detectron2.txt" in detectron2
    assert "--no-build-isolation -c requirements/constraints.txt -e .[test]" in package


def test_an_existing_detectron2_is_not_installed_again(checkout):
    assert checkout.run(PYTHON=checkout.full).returncode == 0
    (asked,) = checkout.asked_of_pip()
    assert asked.endswith("-e .[test]")
    assert "requirements" not in asked, "no pins for an environment that is not ours"


def test_the_second_time_does_nothing_until_a_requirement_changes(checkout):
    for _ in range(2):
        result = checkout.run(PYTHON=checkout.full)
    assert "Installed already" in result.stderr
    assert len(checkout.asked_of_pip()) == 1
    with open(checkout.root / "requirements/constraints.txt", "a") as constraints:
        constraints.write("one-more==1.0\n")
    assert checkout.run(PYTHON=checkout.full).returncode == 0
    assert len(checkout.asked_of_pip()) == 2


def test_a_failed_step_is_named_and_not_taken_for_done(checkout):
    result = checkout.run(PYTHON=checkout.full, PIP_STATUS=1)
    assert result.returncode != 0 and "ERROR: This step failed: Adding d2_balanced" in result.stderr
    assert "Installed already" not in checkout.run(PYTHON=checkout.full).stderr


def test_an_environment_of_someone_else_without_detectron2_is_refused(checkout):
    result = checkout.run(VENV=checkout.bare.parent.parent)
    assert result.returncode != 0 and "Nothing was changed" in result.stderr
    assert checkout.asked_of_pip() == []


def test_another_python_is_refused(checkout, tmp_path):
    old = tmp_path / "python3.8"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    result = checkout.run(PYTHON=old)
    assert result.returncode != 0 and "Python 3.11 was not found" in result.stderr and str(old) in result.stderr
    assert not (checkout.root / ".venv").exists()


def test_doctor_finds_no_fault_here(capsys):
    assert doctor.main() == 0
    printed = capsys.readouterr().out
    assert "detectron2" in printed and "FAULT" not in printed


@pytest.mark.skipif(sys.version_info < (3, 10), reason="Python 3.9 does not show what is being run")
def test_doctor_runs_without_anything_installed(tmp_path):
    command = [sys.executable, "-S", "-m", "d2_balanced.doctor"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60,
                            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"})
    assert result.returncode == 1, result.stderr
    assert "FAULT: d2_balanced needs detectron2" in result.stdout
    assert "fix: `make install`" in result.stdout


def test_doctor_explains_a_compiled_detectron2_that_does_not_load(monkeypatch):
    monkeypatch.setattr(doctor.compat, "has_compiled_ops", lambda: True)
    monkeypatch.setattr(doctor, "_import_error", lambda name: "ImportError: undefined symbol" if "_C" in name else "")
    ((fault, fix),) = doctor._check_detectron2()[1]
    assert "undefined symbol" in fault and "--no-build-isolation --no-deps --force-reinstall" in fix


def test_doctor_names_libraries_too_new_for_a_compiled_06(monkeypatch):
    error = "AttributeError: module 'PIL.Image' has no attribute 'LINEAR'"
    monkeypatch.setattr(doctor.compat, "has_compiled_ops", lambda: True)
    monkeypatch.setattr(doctor.compat, "is_main_branch", lambda: False)
    monkeypatch.setattr(doctor, "_import_error", lambda name: error if name == "detectron2.data" else "")
    ((fault, fix),) = doctor._check_detectron2()[1]
    assert "LINEAR" in fault and "'Pillow<10'" in fix
