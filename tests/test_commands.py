"""How commands end that cannot go on: whose fault it is shows in the status, and in what is printed."""

import ast
import glob
import importlib
import os
import re

import pytest
from commands import refusal, status
from paths import ROOT

from d2_balanced.utils.command import TRACEBACK, command
from d2_balanced.utils.errors import CheckpointError, ConfigError, DataError, OutputError, doing, usage
from d2_balanced.utils.output_folder import require_files, require_writable

MODULES = sorted(glob.glob(os.path.join(ROOT, "d2_balanced", "**", "*.py"), recursive=True))


def runs_as_a_command(path):
    with open(path, encoding="utf-8") as file:
        return any(ast.unparse(node.test) == "__name__ == '__main__'" for node in ast.parse(file.read()).body
                   if isinstance(node, ast.If))  # fmt: skip


COMMANDS = [path for path in MODULES if runs_as_a_command(path)]


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: os.path.relpath(path, ROOT))
def test_every_command_tells_whose_fault_it_is(path):
    """Its main function is ``command``'s, which makes ``SystemExit`` of what is raised."""
    name = os.path.relpath(path, ROOT)[: -len(".py")].replace(os.sep, ".")
    main = importlib.import_module(name).main
    assert main.__wrapped__.__name__ == "main" and "_recreate_cm" in main.__code__.co_names


@command("the_command")
def main(words):
    with doing("while working on the words"):
        return work(words[0])


def work(word):
    if word == "bug":
        with doing("while looking for a bug"):
            raise ValueError("a bug\nof two lines")
    if word == "usage":
        with usage("the.key", KeyError, error=DataError):
            {}["nothing"]
    if word == "nested usage":
        with usage("the.key", ValueError):
            raise CheckpointError("a checkpoint")
    if word == "not this kind":
        with usage("the.key", KeyError):
            int("x")
    return 0


def test_what_the_user_has_to_mend_is_one_line_with_status_2(capsys, monkeypatch):
    assert refusal(main, "usage") == "the.key: 'nothing'"
    assert capsys.readouterr().err == "the_command: error: the.key: 'nothing'\n"
    assert refusal(main, "nested usage") == "a checkpoint"
    capsys.readouterr()
    monkeypatch.setenv(TRACEBACK, "1")
    assert refusal(main, "usage") == "the.key: 'nothing'"
    said = capsys.readouterr().err
    assert said.startswith("Traceback") and said.endswith("\nthe_command: error: the.key: 'nothing'\n")


@pytest.mark.parametrize("word, kind, place", [
    ("bug", "ValueError", "while looking for a bug, while working on the words"),
    ("not this kind", "ValueError", "while working on the words"),
])  # fmt: skip
def test_a_bug_keeps_its_traceback_and_has_status_1(word, kind, place, capsys):
    assert status(main, word) == 1
    said = capsys.readouterr().err
    assert re.search(r'File ".*test_commands.py", line \d+, in work', said)
    assert said.endswith(f"the_command: error: stopped by the {kind} above, {place}.\n")


@pytest.mark.parametrize("name", ["plain file", "below a file"])
def test_a_folder_that_cannot_be_written_to_is_told(name, tmp_path):
    (tmp_path / "file").touch()
    folder = str(tmp_path / "file" / "below" if name == "below a file" else tmp_path / "file")
    with pytest.raises(OutputError, match=f"Cannot write to the output folder {folder!r}: .* another one with --output"):
        require_writable(folder)


def test_a_folder_of_the_name_of_ones_home_is_not_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("~/run", "~", str(tmp_path / "~" / "run")):
        with pytest.raises(OutputError, match="called ~.*without ="):
            require_writable(folder)
    assert os.listdir(tmp_path) == []
    (tmp_path / "~").mkdir()
    require_writable("~/run")
    require_writable(tmp_path / "~run" / "a~")


def test_what_stands_in_the_place_of_a_file_is_told(tmp_path):
    (tmp_path / "model_0000001.pth").symlink_to("nowhere")
    (tmp_path / "inference").mkdir()
    require_files(tmp_path)
    (tmp_path / "log.txt").symlink_to("nowhere/log.txt")
    with pytest.raises(OutputError, match="log.txt' is a link to a file that is not there"):
        require_files(tmp_path)
    (tmp_path / "config.2.yaml").mkdir()
    with pytest.raises(OutputError, match="config.2.yaml' is a folder, and a run writes a file of this name"):
        require_files(tmp_path)


def test_what_goes_well_is_returned():
    assert status(main, "fine") == 0


def test_another_process_says_one_line(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setattr("d2_balanced.utils.command._SECONDS_FOR_THE_FIRST", 0.0)
    with pytest.raises(SystemExit):
        with command("the_command"):
            raise ConfigError("first line\nsecond line")
    assert capsys.readouterr().err == "the_command: error: (process 3) first line\n"


def test_ctrl_c_ends_without_a_traceback(capsys):
    with pytest.raises(SystemExit) as stop, command("tool"):
        raise KeyboardInterrupt
    assert stop.value.code == 130 and capsys.readouterr().err == "tool: error: interrupted.\n"
