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


@pytest.mark.skipif(sys.version_info < (3, 10), reason="there are no pinned versions for Python 3.9")
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


def other_python(folder, version):
    """An interpreter of another version, which can make environments and otherwise is this one."""
    python = folder / f"python{version}"
    log, bare, real = folder / "pip.log", folder / "bare/bin/python", sys.executable
    stand_in = STAND_IN.format(log=log, bare=bare, real=real, flags="-I -S")
    asked_for_version = f'case "$2" in *version_info*) echo {version}; exit ;; esac\n'
    python.write_text(stand_in.replace("case", asked_for_version + "case", 1))
    python.chmod(0o755)
    return python


@pytest.mark.parametrize("version", ["3.7", "3.9", "2.7", "3.15"])
def test_a_python_that_is_too_old_or_too_new_is_refused(checkout, tmp_path, version):
    result = checkout.run(PYTHON=other_python(tmp_path, version))
    assert result.returncode != 0 and "Python 3.10 to 3.14 is needed" in result.stderr
    assert f"is {version}" in result.stderr and "apt install python3 python3-venv" in result.stderr
    assert not (checkout.root / ".venv").exists()


@pytest.mark.parametrize("there, chosen", [
    (["3.9", "3.10", "3.12", "3.13"], "3.12"),
    (["3.10", "3.11", "3.13"], "3.11"),
    (["3.8", "3.10", "3.14"], "3.10"),
    (["3.14"], "3.14"),
])
def test_the_best_tested_python_of_those_that_are_there_is_taken(checkout, tmp_path, there, chosen):
    for version in there:
        other_python(tmp_path, version)
    for tool in ("bash", "dirname", "cat", "cksum", "mkdir", "cp", "touch", "sh"):
        os.symlink(shutil.which(tool), tmp_path / tool)
    result = checkout.run(PATH=tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"Creating the environment {checkout.root}/.venv with {tmp_path}/python{chosen}" in result.stderr


def test_an_environment_that_was_not_finished_is_made_again(checkout, tmp_path):
    """Debian's python3 has no pip for new environments until python3-venv is installed, and stops half-way."""
    python = other_python(tmp_path, "3.12")
    ready = python.read_text()
    python.write_text(ready.replace('"$3/bin/python"; exit', '"$3/bin/python"; exit 1'))
    result = checkout.run(PYTHON=python)
    assert result.returncode != 0 and "apt install python3.12-venv" in result.stderr
    python.write_text(ready)
    result = checkout.run(PYTHON=python)
    assert result.returncode == 0 and "Creating the environment" in result.stderr, result.stderr


def test_an_environment_that_changed_is_looked_at_again(checkout, tmp_path):
    """`Installed already` is said of the very packages that the doctor called healthy."""
    assert checkout.run(PYTHON=checkout.full).returncode == 0
    stamp = checkout.root / ".install-stamp"
    stamp.write_text(stamp.read_text().replace(stamp.read_text().split()[-2], "0"))
    result = checkout.run(PYTHON=checkout.full)
    assert result.returncode == 0 and "Installed already" not in result.stderr


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


def fail_to_import(monkeypatch, **errors):
    """Let the doctor's imports of some modules fail (their names with _ for .), and all others succeed."""
    monkeypatch.setattr(doctor, "_import_error", lambda name: errors.get(name.replace(".", "_"), ""))


def test_doctor_imports_what_it_lists(monkeypatch):
    """NumPy put back to 1.23 beside a new scipy and matplotlib: both are there, and neither can be imported."""
    error = "ModuleNotFoundError: No module named 'numpy.exceptions'"
    fail_to_import(monkeypatch, scipy_optimize=error, matplotlib_pyplot=error)
    ((fault, fix),) = doctor._check_packages()[1]
    assert f"scipy cannot be imported ({error}); matplotlib cannot be imported ({error})" == fault
    assert fix == "pip install --upgrade --force-reinstall --no-deps numpy scipy matplotlib"


def test_doctor_calls_nothing_healthy_that_cannot_train(monkeypatch, capsys):
    fail_to_import(monkeypatch, d2_balanced_engine_run="ImportError: cannot import name 'x'")
    assert doctor.main() == 1
    assert "FAULT: training cannot be started (ImportError: cannot import name 'x')" in capsys.readouterr().out


def test_doctor_names_a_numpy_that_torch_was_not_built_for(monkeypatch):
    class OldTorch:
        __version__ = "2.0.1"

        @staticmethod
        def zeros(size):
            raise RuntimeError("Numpy is not available")

    ((fault, fix),) = doctor._faults_with_numpy(OldTorch)
    assert "2.0.1" in fault and fix == "pip install 'numpy<2'"
