"""The command ``d2_balanced``: its table, its help, and what it says of misuse."""

import argparse
import importlib
import importlib.util
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
    (["train", "--epochs", "nan"], 2, "d2_balanced train: error: argument --epochs: has to be a finite number above 0, not nan"),
    (["eval", "--val-fraction", "2"], 2, "d2_balanced eval: error: argument --val-fraction: has to be above 0 and below 1"),
    (["errors", "a", "--score", "7"], 2, "d2_balanced errors: error: argument --score: has to be from 0 to 1, not 7"),
    (["tune", "--config-file", "a", "--output-dir", "b", "--lr", "0,1"], 2, "--lr=0,1: '0' is no finite number above 0"),
    (["tune", "--config-file", "a", "--output-dir", "b", "--search", "K=1"], 2, "K=1: list two or more different values"),
])  # fmt: skip
def test_what_needs_no_torch_does_not_wait_for_it(words, status, said):
    done = run(LIGHT.format(words=words))
    assert said in done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == f"status {status}", done.stderr


def numeric_options():
    """``(command, option, type)`` of all options that take a number; plain ``int`` and ``float`` are any number."""
    for name, each in program.COMMANDS.items():
        words = importlib.util.find_spec(f"d2_balanced.arguments.{name.replace('-', '_')}")
        module = importlib.import_module(words.name if words else f"d2_balanced.{each.target.split(':')[0]}")
        for action in getattr(module, "argument_parser", argparse.ArgumentParser)()._actions:
            if action.type not in (None, str):
                yield name, action.option_strings[-1], action.type


def test_a_number_out_of_its_range_is_told_when_the_words_are_read():
    options = list(numeric_options())
    assert len(options) > 50 and {"train", "eval", "tune", "errors", "predict"} <= {name for name, *_ in options}
    assert not [(name, option) for name, option, kind in options if kind in (int, float)]
    for name, option, kind in options:
        for text in ("nan", "-1", "-inf", "1e400", "x"):
            with pytest.raises((argparse.ArgumentTypeError, ValueError)):
                kind(text)
                pytest.fail(f"{name} {option} {text}")


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
