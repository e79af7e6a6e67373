"""tables.yaml: what is read, and what each mistake in it, or in the choice of tables, is told."""

import pytest
import yaml
from d2_balanced.config import ConfigError
from d2_balanced.tables.files import find_papers, read_tables, select_tables

CONFIGS = {"config": "configs/coco/faster_rcnn_R_50_FPN_1x.yaml", "tiny": "configs/quick/faster_rcnn_R_18_FPN.yaml"}


def table(*rows, **more):
    plain = {"name": "plain", **CONFIGS, "overrides": {"A": 1, "B": 1}, "tiny_overrides": {"B": 2}, "paper": {"AP": 30}}
    return {"title": "T", "metrics": ["AP"], "rows": [plain, *rows], **more}


def read(folder, content):
    path = folder / "paper" / "tables.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump({"table_1": content}))
    return read_tables(str(path))


def test_overrides_by_scale(tmp_path):
    evaluated = {"name": "e", "eval_of": "plain", "overrides": {"A": 5}, "paper": {}}
    (found,) = read(tmp_path, table(evaluated, scale_note=" note\n"))
    plain, e = found.rows
    assert (found.label, found.note) == ("paper:table_1", "note")
    assert plain.settings("tiny") == {"A": 1, "B": 2} and plain.settings("coco") == {"A": 1, "B": 1}
    assert e.trained is plain and e.settings("tiny") == {"A": 5, "B": 2}
    assert e.config_file("coco") == CONFIGS["config"] and e.config_file("tiny") == CONFIGS["tiny"]


def test_an_ensemble_has_the_rows_that_it_evaluates_together(tmp_path):
    rows = [{"name": name, **CONFIGS, "paper": {}} for name in ("second", "third")]
    both = {"name": "e", "eval_of": "plain", "ensemble_with": ["second", "third"], "paper": {}}
    plain, second, third, e = read(tmp_path, table(*rows, both))[0].rows
    assert e.trained is plain and e.others == (second, third) and e.settings("tiny") == plain.settings("tiny")
    assert read(tmp_path, table(*rows, {**both, "ensemble_with": "third"}))[0].rows[-1].others[0].name == "third"


def test_a_row_that_has_no_quick_recipe(tmp_path):
    deeper = {"name": "deeper", "config": CONFIGS["config"], "no_tiny": "one depth", "paper": {}}
    (found,) = read(tmp_path, table(deeper, {"name": "e", "eval_of": "deeper", "paper": {}}))
    assert [row.why_not("tiny") for row in found.rows] == ["", "one depth", "one depth"]
    assert [row.why_not("coco") for row in found.rows] == ["", "", ""]


NO = {"cannot_run": "reason", "paper": {}}


@pytest.mark.parametrize("content, words", [
    (table(titel="x"), r"tables.yaml: table_1.titel: there is no such key.*Did you mean title"),
    ({"title": "T", "metrics": ["AP"]}, r"table_1: rows is missing"),
    (table(metrics="AP"), r"table_1.metrics: expected a list"),
    (table(rows=[]), r"table_1.rows: expected a list of rows"),
    (table(baseline="plan"), r"table_1.baseline: no row is called 'plan'. Did you mean plain"),
    (table({"name": "plain", **NO}), r"rows: two rows are called 'plain'"),
    (table({"name": "x", **NO, "tiny": "a"}), r"rows\[1\] \(x\): a row has config and tiny \(or no_tiny\), or"),
    (table({"name": "x", **NO, **CONFIGS}), r"rows\[1\] \(x\): a row has config and tiny \(or no_tiny\), or"),
    (table({"name": "x", "paper": {}}), r"rows\[1\] \(x\): a row has config"),
    (table({"name": "x", **CONFIGS, "no_tiny": "r", "paper": {}}), r"rows\[1\] \(x\): a row has config"),
    (table({"name": "x", **NO, "overides": {}}), r"rows\[1\].overides: .* Did you mean overrides"),
    (table({"name": "x", **NO, "overrides": [1]}), r"rows\[1\] \(x\).overrides: expected a mapping"),
    (table({"name": "x", "cannot_run": "r", "paper": {"AP51": 3}}), r"\(x\).paper.AP51: the table's metrics do not"),
    (table({"name": "x", "cannot_run": "r", "paper": {"AP": "3,5"}}), r"\(x\).paper.AP: expected a number, got '3,5'"),
    (table({"name": "x", "eval_of": "plane", "paper": {}}), r"\(x\).eval_of: no row .* 'plane'. Did you mean plain"),
    (table({"name": "x", **NO}, {"name": "y", "eval_of": "x", "paper": {}}), r"\(y\).eval_of: no row with a config"),
    (table({"name": "y", "eval_of": "plain", "ensemble_with": ["plane"], "paper": {}}), r"\(y\).ensemble_with: no row .* plain"),
    (table({"name": "y", **NO, "ensemble_with": ["plain"]}), r"\(y\).ensemble_with: needs eval_of"),
    ("table_1: {title: a, title: b}", r"title is given twice"),
    ("table_1: [", r"tables.yaml is not a \(safe\) YAML file"),
])  # fmt: skip
def test_mistakes_name_file_and_key(tmp_path, content, words):
    with pytest.raises(ConfigError, match=words):
        read(tmp_path, content)


def test_selection():
    assert len(find_papers()) >= 5
    everything = select_tables([])
    assert {table.paper for table, _ in everything} == set(find_papers())
    (one,) = select_tables(["DynamicRCNN:table_3"], ["DLA", "baseline"])
    assert [row.name for row in one[1]] == ["baseline", "DLA"]
    assert len(select_tables(["DynamicRCNN:table_3", "DynamicRCNN"])) == len(select_tables(["DynamicRCNN"]))


@pytest.mark.parametrize("wanted, rows, words", [
    (["LibraRCN"], [], "no paper 'LibraRCN'.*Did you mean LibraRCNN"),
    (["LibraRCNN:table2"], [], "LibraRCNN has no table 'table2'.*Did you mean table_"),
    (["LibraRCNN:table_2"], ["base line"], "No row is called 'base line' in LibraRCNN:table_2. Did you mean baseline"),
])  # fmt: skip
def test_unknown_choices(wanted, rows, words):
    with pytest.raises(ConfigError, match=words):
        select_tables(wanted, rows)


def test_without_a_checkout(tmp_path):
    with pytest.raises(ConfigError, match="in a checkout"):
        find_papers(str(tmp_path))
