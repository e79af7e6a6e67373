"""``python -m d2_balanced.tables``: run rows, tables or papers, and write their results. Guide: docs/TABLES.md."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from typing import Dict, List, Optional, Sequence, Tuple

from ..arguments.tables import argument_parser
from ..engine.experiment import OwnData
from ..utils.command import command
from ..utils.errors import ConfigError
from ..utils.output_folder import require_writable
from .data import without_unusable_data
from .execute import FINISHED, Interrupted, execute, measure_speeds
from .files import Table, find_papers, select_tables
from .plan import Options, PlannedRow, Run, plan_rows, runs_of
from .results import measure_row, write_table
from .state import Task, adopt, finished_runs, keep_final_only, run_folder

__all__ = ["argument_parser", "main"]

SOMETHING_FAILED, STOPPED = 1, 130
_SEEDS = {"tiny": [1, 2, 3, 4], "coco": [1]}


@command("python -m d2_balanced.tables")
def main(argv: Optional[Sequence[str]] = None) -> int:
    """The command. Returns 0 if every chosen run is finished, 1 if one failed, 130 after Ctrl-C."""
    args = argument_parser().parse_args(argv)
    selection = select_tables(args.what, args.row)
    planned = plan_rows([(table, table.rows) for table, _ in selection], _options(args))
    chosen = [row for row in planned if not args.row or row.row.name in args.row]
    if args.list:
        return _list(chosen)
    if not args.what:
        raise ConfigError(f"Say what to run: PAPER or PAPER:TABLE of {', '.join(find_papers())}; --list shows all.")
    if args.dry_run:
        return _dry_run(chosen, _tasks(chosen, args))
    if not args.report:
        checked = dict(zip(chosen, without_unusable_data(chosen)))
        planned, chosen = [checked.get(row, row) for row in planned], list(checked.values())
    tasks = _tasks(planned, args)
    _adopt(tasks, args.adopt)
    return _run(planned, runs_of(chosen), tasks, args)


def _options(args: argparse.Namespace) -> Options:
    if len(args.overrides) % 2:
        raise ConfigError(f"--overrides takes pairs, KEY.PATH VALUE; got {' '.join(args.overrides)}")
    data = OwnData(args.train_json, args.train_images, args.val_json, args.val_images)
    return Options(args.scale, data, dict(zip(args.overrides[0::2], args.overrides[1::2])), args.num_gpus)


def _tasks(planned: List[PlannedRow], args: argparse.Namespace) -> Dict[Run, List[Task]]:
    """``{run: its task for every seed}``, trainings before the evaluations that need them."""
    tasks: Dict[Run, List[Task]] = {}
    for run in sorted(runs_of(planned), key=lambda run: run.trained is not None):
        evaluated = [tasks[each] for each in (run.trained, *run.others) if each]
        for index, seed in enumerate(_seeds(args)):
            source, *others = [each[index] for each in evaluated] or [None]
            task = Task(run, seed, run_folder(args.output, run, seed), source, tuple(others))
            tasks.setdefault(run, []).append(task)
    return tasks


def _seeds(args: argparse.Namespace) -> List[int]:
    return list(dict.fromkeys(args.seeds or _SEEDS[args.scale]))


def _by_table(planned: List[PlannedRow]) -> Dict[str, List[PlannedRow]]:
    tables: Dict[str, List[PlannedRow]] = {}
    for row in planned:
        tables.setdefault(row.table.label, []).append(row)
    return tables


def _list(planned: List[PlannedRow]) -> int:
    for label, rows in _by_table(planned).items():
        print(f"\n{label}  {rows[0].table.title}")
        for row in rows:
            print(f"    {row.row.name:<45} {_kind(row)}")
    print(f"\n{len(planned)} rows, {len(runs_of(planned))} different runs, "
          f"{sum(row.run is None for row in planned)} that cannot run")
    return 0


def _kind(row: PlannedRow) -> str:
    if row.run is None:
        return f"cannot run: {row.reason}"
    if row.row.trained:
        return f"evaluates {' and '.join(each.name for each in (row.row.trained, *row.row.others))}"
    return row.row.config_file(row.run.options.scale)


def _dry_run(planned: List[PlannedRow], tasks: Dict[Run, List[Task]]) -> int:
    for run, of_seeds in tasks.items():
        names = [f"{row.table.label} {row.row.name}" for row in planned if row.run is run]
        print(f"\n# {'; '.join(names) or 'needed by the evaluations below'}")
        print(f"#   config: {os.path.relpath(run.config_file)}")
        for key, value in run.overrides.items():
            print(f"#   {key}: {value}")
        for task in of_seeds:
            print(shlex.join(["python", *task.command()[1:]]))
    for row in planned:
        if row.run is None:
            print(f"\n# {row.table.label} {row.row.name} cannot run: {row.reason}")
    return 0


def _adopt(tasks: Dict[Run, List[Task]], folders: List[str]) -> None:
    for folder in folders:
        finished, others = finished_runs(folder)
        all_tasks = [task for of_seeds in tasks.values() for task in of_seeds]
        for task in all_tasks:
            source = adopt(task, finished)
            if source:
                print(f"{task.label}: taken over from {source}")
        wanted = {(task.run.key, task.seed) for task in all_tasks}
        others += [f"{path}: no row has its config and seed" for key, path in finished.items() if key not in wanted]
        for line in others:
            print(f"not taken over: {line}")


def _run(planned: List[PlannedRow], chosen: List[Run], tasks: Dict[Run, List[Task]], args: argparse.Namespace) -> int:
    """Run what is chosen, seed by seed, then report whole tables: also other rows' results that are there."""
    require_writable(args.output)
    everything = [task for of_one_seed in zip(*(tasks[run] for run in tasks if run in chosen)) for task in of_one_seed]
    already = [task for task in everything if task.is_finished()]
    print(f"{len(everything)} runs of {len(chosen)} different configs, {len(already)} of them finished already, for the "
          "same config and seed.")
    results, status = ({}, 0) if args.report else _execute(everything, args.jobs)
    problems = {task: results.get(task, "not finished") for of_seeds in tasks.values() for task in of_seeds
                if results.get(task) != FINISHED and not task.is_finished()}
    if args.speed and not args.report and not status:
        slow = measure_speeds([task for task in everything if task not in problems])
        status = SOMETHING_FAILED if slow else status
    _write_reports(planned, tasks, problems, args)
    failed = [task for task in everything if task in problems]
    for task in everything if args.final_only else ():
        if task not in failed:
            keep_final_only(task.folder)
    if args.report:
        return 0
    for task in failed:
        print(f"{task.label}: {problems[task]}", file=sys.stderr)
    return status or (SOMETHING_FAILED if failed else 0)


def _execute(tasks: List[Task], jobs: int) -> Tuple[Dict[Task, str], int]:
    """What became of the tasks, and the exit status: of a stopped command even if nothing failed."""
    try:
        return execute(tasks, jobs), 0
    except Interrupted:
        print("Stopped. The same command goes on from here.")
        return {}, STOPPED


def _write_reports(planned: List[PlannedRow], tasks: Dict[Run, List[Task]], problems, args) -> None:
    for rows in _by_table(planned).values():
        table: Table = rows[0].table
        results = [measure_row(row, tasks.get(row.run, ()), problems) for row in rows]
        path = write_table(args.output, table, results, _options(args))
        with open(path, encoding="utf-8") as file:
            print(f"\n{file.read()}\nWritten to {path}, .csv and figures (.png)")
