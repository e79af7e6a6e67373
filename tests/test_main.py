"""The command ``d2_balanced``: its table, its help, and what it says of misuse."""

import importlib
import inspect
import os
import shlex
import subprocess
import sys

import pytest
from paths import ROOT

from d2_balanced import __main__ as program
from d2_balanced.utils.command import calling, command_line

LIGHT = """
import sys
sys.orig_argv = ["python", "-m", "d2_balanced"]
from d2_balanced.__main__ import main
try:
    status = main({words})
except SystemExit as stop:
    status = stop.code
heavy = {{"torch", "detectron2"}} & set(sys.modules)
print("status", status, *heavy)
"""


def run(code, **environment):
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **environment},
                          capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", program.COMMANDS)
def test_every_command_is_a_function_that_takes_words(name, capsys):
    module, function = program.COMMANDS[name].target.split(":")
    assert callable(getattr(importlib.import_module(f"d2_balanced.{module}"), function))
    with pytest.raises(SystemExit) as stop:
        getattr(importlib.import_module(f"d2_balanced.{module}"), function)(["--help"])
    assert not stop.value.code and "usage: " in capsys.readouterr().out


@pytest.mark.parametrize("words, status, said", [
    (["--help"], 0, "  train  "),
    ([], 2, "usage: d2_balanced COMMAND"),
    (["trian"], 2, "there is no command 'trian'. Did you mean train"),
    (["train", "--no-such-option"], 2, "d2_balanced train: error: "),
    (["predict", "--run", "a"], 2, "d2_balanced predict: error: the following arguments are required: --input"),
    *((each, 0, f"usage: d2_balanced {each[0]}") for each in [[name, "--help"] for name in program.COMMANDS]),
    (["configs", "quick"], 0, "quick/faster_rcnn_R_18_FPN"),
])  # fmt: skip
def test_what_needs_no_torch_does_not_wait_for_it(words, status, said):
    done = run(LIGHT.format(words=words))
    assert said in done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == f"status {status}", done.stderr


def test_commands_say_their_name_and_status(tmp_path):
    words = ["check", "--json", str(tmp_path / "no.json"), "--images", str(tmp_path)]
    done = subprocess.run([sys.executable, "-m", "d2_balanced", *words], cwd=ROOT, capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 2 or done.returncode == 1
    assert "no.json" in done.stdout + done.stderr and "Traceback" not in done.stderr


def test_without_detectron2_the_doctor_and_the_help_still_run():
    hide = """
import sys, importlib.util
sys.orig_argv = ["python", "-m", "d2_balanced"]
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "detectron2" else find(name, *more)
from d2_balanced.__main__ import main
"""
    assert run(hide + "print(main(['--help']))").returncode == 0
    done = run(hide + "main(['train'])")
    assert done.returncode == 2 and "make install" in done.stderr and "Traceback" not in done.stderr
    from d2_balanced import doctor  # noqa: F401  it imports nothing of detectron2


def test_the_log_has_a_command_that_can_be_pasted(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/bin/d2_balanced", "train", "--output-dir", "my run's"])
    with calling("d2_balanced train"):
        assert command_line() == shlex.join(["d2_balanced", "train", "--output-dir", "my run's"])
    monkeypatch.setattr(sys, "argv", ["my tools/train_net.py", "train"])
    assert command_line() == "'my tools/train_net.py' train"


def test_the_evaluation_is_trainings_own(monkeypatch):
    from d2_balanced import train

    given = []
    monkeypatch.setattr(train, "main", given.append)
    train.evaluate(["--config-file", "x"])
    assert given == [["--eval-only", "--config-file", "x"]]


def test_options_name_what_there_is():
    """They are written down without the modules that do the work."""
    from d2_balanced.arguments import check, generated
    from d2_balanced.data.generated import generate
    from d2_balanced.data.input_size import DEFAULT_SIZE
    from d2_balanced.data.scene import LEVELS
    from d2_balanced.inference import Tiles

    levels = next(action for action in generated.argument_parser()._actions if action.dest == "level").choices
    assert list(levels) == list(LEVELS)
    signature = inspect.signature(generate).parameters
    for name, value in {**generated.DEFAULTS, "level": "mild"}.items():
        assert signature[name].default == value
    help_of_check = " ".join(check.argument_parser().format_help().split())
    assert f"default: {DEFAULT_SIZE.short_edge} {DEFAULT_SIZE.max_size}" in help_of_check
    predict = importlib.import_module("d2_balanced.arguments.predict").argument_parser()
    assert predict.get_default("overlap") == inspect.signature(Tiles).parameters["overlap"].default
