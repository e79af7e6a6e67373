"""Reading and checking ``tables.yaml``: a paper's tables, whose rows are configs with overrides."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from glob import glob
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ..config.yaml_files import read_with_bases
from ..utils.errors import ConfigError, did_you_mean
from ..utils.shipped import ROOT

__all__ = ["ROOT", "Row", "Table", "find_papers", "read_tables", "select_tables"]

_OVERRIDES = ("overrides", "tiny_overrides", "coco_overrides")
_TABLE_KEYS = ("title", "metrics", "scale_note", "baseline", "rows")
_ROW_KEYS = ("name", "config", "tiny", "no_tiny", *_OVERRIDES, "eval_of", "ensemble_with", "cannot_run", "paper")


@dataclass(frozen=True, eq=False)
class Row:
    """A row: a run, an evaluation of another row's weights, or the reason why it is neither.

    ``config`` is the paper's, ``tiny`` the quick one, or ``no_tiny`` says why there is none; ``overrides`` hold at both
    scales. ``trained`` is the row whose weights this one evaluates (``eval_of``), which also gives its configs; ``others`` are evaluated with it, as one
    detector (``ensemble_with``). ``paper`` holds the paper's figures.
    """

    name: str
    paper: Mapping[str, float] = field(default_factory=dict)
    config: str = ""
    tiny: str = ""
    no_tiny: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    tiny_overrides: Mapping[str, Any] = field(default_factory=dict)
    coco_overrides: Mapping[str, Any] = field(default_factory=dict)
    trained: Optional["Row"] = None
    others: Tuple["Row", ...] = ()
    cannot_run: str = ""

    def config_file(self, scale: str) -> str:
        """The config at a scale, relative to the checkout."""
        row = self.trained or self
        return row.tiny if scale == "tiny" else row.config

    def why_not(self, scale: str) -> str:
        """Why there is no run at a scale, whatever the machine; empty where there is one."""
        rows = (self.trained or self, *self.others)
        return self.cannot_run or next((row.no_tiny for row in rows if row.no_tiny and scale == "tiny"), "")

    def settings(self, scale: str) -> Dict[str, Any]:
        """``{KEY.PATH: value}`` of all overrides at a scale; an evaluated row's own come after its training's."""
        inherited = self.trained.settings(scale) if self.trained else {}
        return {**inherited, **self.overrides, **getattr(self, f"{scale}_overrides")}


@dataclass(frozen=True, eq=False)
class Table:
    """A table of a paper: ``paper`` is its project's folder, ``baseline`` the row that differences are taken to."""

    paper: str
    name: str
    title: str
    metrics: Tuple[str, ...]
    rows: Tuple[Row, ...]
    note: str = ""
    baseline: str = ""
    file: str = ""

    @property
    def label(self) -> str:
        return f"{self.paper}:{self.name}"


def find_papers(root: str = ROOT) -> Dict[str, str]:
    """``{project folder: its tables.yaml}``; ``ConfigError`` where there are none (no checkout)."""
    files = sorted(glob(os.path.join(root, "projects", "*", "tables.yaml")))
    if not files:
        raise ConfigError(f"There is no projects/*/tables.yaml in {root}; run this in a checkout of the repository.")
    return {os.path.basename(os.path.dirname(path)): path for path in files}


def read_tables(path: str) -> List[Table]:
    """The tables of a file. Raises ``ConfigError`` that names the file, the table, the row and the key."""
    content = read_with_bases(path)[-1][1]
    paper = os.path.basename(os.path.dirname(os.path.abspath(path)))
    tables = [_table(paper, str(name), content[name], f"{path}: {name}") for name in content]
    return [replace(table, file=os.path.abspath(path)) for table in tables]


def _table(paper: str, name: str, content, where: str) -> Table:
    _check_keys(content, _TABLE_KEYS, ("title", "metrics", "rows"), where)
    metrics = content["metrics"]
    if not (isinstance(metrics, list) and metrics and all(isinstance(metric, str) for metric in metrics)):
        raise ConfigError(f"{where}.metrics: expected a list of names of metrics, got {metrics!r}.")
    rows = _rows(content["rows"], metrics, f"{where}.rows")
    baseline = content.get("baseline", "")
    names = [row.name for row in rows]
    if baseline and baseline not in names:
        raise ConfigError(f"{where}.baseline: no row is called {baseline!r}.{did_you_mean(str(baseline), names)}")
    note = str(content.get("scale_note", "")).strip()
    return Table(paper, name, str(content["title"]), tuple(metrics), tuple(rows), note, baseline)


def _rows(entries, metrics, where: str) -> List[Row]:
    if not (isinstance(entries, list) and entries):
        raise ConfigError(f"{where}: expected a list of rows, got {entries!r}.")
    places = [f"{where}[{index}]" for index in range(len(entries))]
    rows = [_row(entry, metrics, place) for entry, place in zip(entries, places)]
    by_name = {row.name: row for row in rows}
    if len(by_name) < len(rows):
        twice = next(row.name for row in rows if row is not by_name[row.name])
        raise ConfigError(f"{where}: two rows are called {twice!r}.")
    return [_with_training(row, entry, by_name, place) for row, entry, place in zip(rows, entries, places)]


def _row(entry, metrics, where: str) -> Row:
    _check_keys(entry, _ROW_KEYS, ("name", "paper"), where)
    name = str(entry["name"])
    where = f"{where} ({name})"
    kinds = [key for key in ("config", "eval_of", "cannot_run") if key in entry]
    scales = [key for key in ("tiny", "no_tiny") if key in entry]
    if len(kinds) != 1 or len(scales) != ("config" in entry):
        raise ConfigError(f"{where}: a row has config and tiny (or no_tiny), or eval_of, or cannot_run, and only one of "
                          f"these; got {', '.join(entry)}.")
    _check_figures(entry["paper"], metrics, f"{where}.paper")
    overrides = {key: _mapping(entry.get(key, {}), f"{where}.{key}") for key in _OVERRIDES}
    texts = {key: str(entry.get(key, "")) for key in ("config", "tiny", "no_tiny", "cannot_run")}
    return Row(name, entry["paper"], **overrides, **texts)


def _with_training(row: Row, entry, by_name: Mapping[str, Row], where: str) -> Row:
    """The row, with the row of its ``eval_of`` and those of its ``ensemble_with`` if it has any."""
    name, others = entry.get("eval_of"), entry.get("ensemble_with", [])
    if name is None:
        if others:
            raise ConfigError(f"{where} ({row.name}).ensemble_with: needs eval_of, the row that the others are added to.")
        return row
    others = others if isinstance(others, list) else [others]
    found = [_trained(other, by_name, f"{where} ({row.name}).ensemble_with") for other in others]
    return replace(row, trained=_trained(name, by_name, f"{where} ({row.name}).eval_of"), others=tuple(found))


def _trained(name, by_name: Mapping[str, Row], where: str) -> Row:
    if name not in by_name or not by_name[name].config:
        trained = [other.name for other in by_name.values() if other.config]
        raise ConfigError(f"{where}: no row with a config is called {name!r}.{did_you_mean(str(name), trained)}")
    return by_name[name]


def _mapping(value, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: expected a mapping of config keys to values, got {value!r}.")
    return value


def _check_keys(content, known, needed, where: str) -> None:
    keys = _mapping(content, where)
    for key in keys:
        if key not in known:
            raise ConfigError(f"{where}.{key}: there is no such key; there are {', '.join(known)}."
                              f"{did_you_mean(str(key), known)}")
    missing = [key for key in needed if key not in keys]
    if missing:
        raise ConfigError(f"{where}: {', '.join(missing)} is missing.")


def _check_figures(figures, metrics, where: str) -> None:
    for metric, value in _mapping(figures, where).items():
        if metric not in metrics:
            raise ConfigError(f"{where}.{metric}: the table's metrics do not have it.{did_you_mean(metric, metrics)}")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ConfigError(f"{where}.{metric}: expected a number, got {value!r}.")


def select_tables(wanted: List[str], row_names: List[str] = (), root: str = ROOT) -> List[Tuple[Table, List[Row]]]:
    """Tables, each with the chosen rows, in the order of the files.

    Args:
        wanted: ``PAPER`` or ``PAPER:TABLE``, where PAPER is a folder of projects/ or the path of a tables.yaml; empty:
            all papers.
        row_names: rows to take, by name; each has to be in one of the tables at least. Empty: all rows.

    Raises ``ConfigError`` for what does not exist, with what may have been meant.
    """
    papers = find_papers(root)
    tables = [table for word in (wanted or papers) for table in _tables_of(word, papers)]
    tables = _each_once(tables)
    names = [row.name for table in tables for row in table.rows]
    for name in row_names:
        if name not in names:
            raise ConfigError(f"No row is called {name!r} in {', '.join(t.label for t in tables)}."
                              f"{did_you_mean(name, names)}")
    chosen = [(table, [row for row in table.rows if not row_names or row.name in row_names]) for table in tables]
    return [(table, rows) for table, rows in chosen if rows]


def _each_once(tables: List[Table]) -> List[Table]:
    by_label: Dict[str, Table] = {}
    for table in tables:
        first = by_label.setdefault(table.label, table)
        if first.file != table.file:
            raise ConfigError(f"{first.file} and {table.file} both have {table.label}, and their results would have one "
                              "name: run them one at a time, each with its own --output.")
    return list(by_label.values())


def _tables_of(word: str, papers: Mapping[str, str]) -> List[Table]:
    paper, _, name = word.partition(":")
    if paper not in papers and not os.path.isfile(paper):
        raise ConfigError(f"There is no paper {paper!r} (nor a file of tables); there are {', '.join(papers)}."
                          f"{did_you_mean(paper, papers)}")
    tables = read_tables(papers.get(paper, paper))
    chosen = [table for table in tables if name in ("", table.name)]
    if not chosen:
        known = [table.name for table in tables]
        raise ConfigError(f"{paper} has no table {name!r}; it has {', '.join(known)}.{did_you_mean(name, known)}")
    return chosen
