"""Old paths of this package in a user's LazyConfig or component: an error that names the new one."""

import importlib.util
import sys
from pydoc import locate

import pytest

from d2_balanced.config import ConfigError, load_lazy
from d2_balanced.config.imports import import_modules
from d2_balanced.utils.moved import MOVED, new_path

SOLVER = "d2_balanced.solver was moved: it is d2_balanced.engine.optimizer now"
DYNAMIC = "d2_balanced.modeling.dynamic{} was moved: it is d2_balanced.modeling.box_losses.dynamic_smooth_l1{} now"
CLI = "d2_balanced.engine.cli was moved: it is d2_balanced.train now"
LOSS = "modeling.dynamic.DynamicSmoothL1"


@pytest.mark.parametrize("old", MOVED)
def test_the_table_is_true(old):
    folder = old.rpartition(".")[0]
    if locate(folder) is not None and hasattr(locate(folder), "__path__"):
        assert importlib.util.find_spec(old) is None, "what is still there was not moved"
    assert locate(MOVED[old]) is not None


def test_the_longest_path_counts():
    assert new_path("d2_balanced.data.report.Report") == "d2_balanced.data.problems.Report"
    assert new_path("d2_balanced.data.report.DatasetError") == "d2_balanced.utils.errors.DataError"
    assert new_path("d2_balanced.data.loader.build_train_loader") == new_path("d2_balanced") == new_path("solver") == ""


@pytest.mark.parametrize("line, message", [
    ("from d2_balanced.solver import clipped_sgd", SOLVER),
    ("import d2_balanced.solver as s", SOLVER),
    ("from d2_balanced.engine import cli", CLI),
    ("from d2_balanced.modeling.dynamic import (\n    DynamicSmoothL1,\n)", DYNAMIC.format("", "")),
    ("from d2_balanced.engine.step_losses import NonFiniteLossError", "it is d2_balanced.engine.nonfinite.NonFinite"),
])  # fmt: skip
def test_an_import_in_a_config_or_in_what_it_imports_names_file_line_and_new_path(line, message, tmp_path):
    (tmp_path / "base.py").write_text(f"x = 1\n{line}\n")
    (tmp_path / "config.py").write_text("\nfrom .base import x\n")
    for name in ("base.py", "config.py"):
        with pytest.raises(ConfigError) as error:
            load_lazy(str(tmp_path / name))
        assert f"{tmp_path / 'base.py'}, line 2: " in str(error.value) and message in str(error.value)


@pytest.mark.parametrize("code, message", [
    ("import d2_balanced.no_such_module", "config.py, line 1: there is no module 'd2_balanced.no_such_module'"),
    ("\nfrom d2_balanced.config import nothing", "config.py, line 2: cannot import name 'nothing'"),
    ("\nfrom .base import y", "config.py, line 2: there is no 'y' in that file"),
    ("from .bass import x", "config.py, line 1: Cannot import name bass .*bass.py (has to|does not) exist\\.$"),
    ("\n\nx = (", "config.py has syntax error!, line (3: .* never closed|4: unexpected EOF)"),
])  # fmt: skip
def test_other_failed_imports_name_file_and_line(code, message, tmp_path):
    (tmp_path / "base.py").write_text("x = 1\n")
    (tmp_path / "config.py").write_text(code + "\n")
    with pytest.raises(ConfigError, match=message):
        load_lazy(str(tmp_path / "config.py"))


def test_a_bug_in_a_config_stays_what_it_is(tmp_path):
    (tmp_path / "config.py").write_text("settings = {}\nmodel = settings['model']\n")
    with pytest.raises(KeyError) as error:
        load_lazy(str(tmp_path / "config.py"))
    assert error.traceback[-1].lineno == 1 and str(error.traceback[-1].path).endswith("config.py")


def test_a_target_whose_module_has_a_bug_shows_its_line(tmp_path, monkeypatch):
    (tmp_path / "with_a_bug.py").write_text("\n1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "config.py").write_text("model = dict(_target_='with_a_bug.Thing')\n")
    with pytest.raises(ZeroDivisionError) as error:
        load_lazy(str(tmp_path / "config.py"))
    assert "with_a_bug.py" in str(error.traceback[-1].path) and "model._target_" in error.value.doing[0]


def test_a_target_names_its_key_and_the_new_path(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(f"model = dict(box_loss=dict(_target_='d2_balanced.{LOSS}'))\n")
    with pytest.raises(ConfigError) as error:
        load_lazy(str(path))
    assert str(error.value).startswith("model.box_loss._target_: ")
    assert DYNAMIC.format(*[".DynamicSmoothL1"] * 2) in str(error.value)


def test_a_component_of_a_yaml_config_is_told_too(tmp_path, monkeypatch):
    (tmp_path / "old_component.py").write_text("\nfrom d2_balanced.solver import clipped_sgd\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError) as error:
        import_modules(["old_component"])
    assert f"{tmp_path / 'old_component.py'}, line 2: {SOLVER}" in str(error.value)
    assert "old_component" not in sys.modules
