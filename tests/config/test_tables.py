"""Every row of a project's tables is a run that can be started: its configs and overrides are accepted."""

import glob
import os

import pytest
import yaml
from paths import ROOT

from d2_balanced.config import check_config, load_yaml

ROW_KEYS = {"name", "config", "tiny", "overrides", "coco_overrides", "tiny_overrides", "paper", "cannot_run"}


def tables():
    for path in sorted(glob.glob(os.path.join(ROOT, "projects", "*", "tables.yaml"))):
        with open(path, encoding="utf-8") as file:
            for name, table in yaml.safe_load(file).items():
                yield pytest.param(table, id=f"{os.path.basename(os.path.dirname(path))}-{name}")


@pytest.fixture(autouse=True)
def compiled_operators(monkeypatch):
    """Rows with deformable convolutions are checked as where they can run."""
    monkeypatch.setattr("d2_balanced.compat.has_compiled_ops", lambda: True)


def accepted(config, *overrides):
    words = [str(word) for settings in overrides for pair in (settings or {}).items() for word in pair]
    cfg = load_yaml(os.path.join(ROOT, config), words)
    check_config(cfg)
    return cfg


@pytest.mark.parametrize("table", list(tables()))
def test_rows_of_the_tables_can_run(table):
    names = [row["name"] for row in table["rows"]]
    assert len(set(names)) == len(names)
    for row in table["rows"]:
        assert set(row) <= ROW_KEYS and ("config" in row) != ("cannot_run" in row), row["name"]
        assert set(row["paper"]) <= set(table["metrics"]), row["name"]
        if "config" in row:
            accepted(row["config"], row.get("overrides"), row.get("coco_overrides"))
            accepted(row["tiny"], row.get("overrides"), row.get("tiny_overrides"))
