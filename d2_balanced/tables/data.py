"""The data sets of all rows, looked at before any time is spent."""

from __future__ import annotations

from typing import Dict, List, Sequence

from ..data.proposal_files import is_missing
from ..engine.build import check_data
from ..utils.errors import DataError, UsageError
from .plan import PlannedRow, Run

__all__ = ["without_unusable_data"]


def without_unusable_data(planned: Sequence[PlannedRow]) -> List[PlannedRow]:
    """The rows, those whose data are missing or do not fit their model with the reason in place of their run.

    A data set is checked once for every way in which models use it (classes, masks). Raises ``DataError`` with all
    that was found if no row is left, also where the rows could not run anyway.
    """
    found: Dict[tuple, str] = {}
    checked = [_checked(row, found) for row in planned]
    if not any(row.run for row in checked):
        problems = [problem for problem in found.values() if problem] or [row.reason for row in checked]
        raise DataError("No row can run:\n" + "\n".join(dict.fromkeys(problems)))
    return checked


def _checked(row: PlannedRow, found: Dict[tuple, str]) -> PlannedRow:
    if row.run is None:
        return row
    problem = _problem(row.run, found)
    if not problem:
        return row
    lines = [line.strip() for line in problem.splitlines()]
    errors = [line for line in lines if line.startswith("error:")]
    return row._replace(run=None, reason=f"its data: {(errors or lines)[0]}")


def _problem(run: Run, found: Dict[tuple, str]) -> str:
    experiment = run.experiment()
    if not run.test_set:
        return "there is nothing to evaluate on: give --val-json and --val-images, or DATASETS.TEST"
    missing = [path for _, files in experiment.proposal_files for path in files if is_missing(path)]
    if missing:
        return f"the file of proposals {missing[0]} does not exist"
    used = (experiment.train_datasets, experiment.test_datasets, experiment.mask_format, run.options.data)
    if not any(run.options.data):
        used += (experiment.num_classes,)
    if used not in found:
        try:
            experiment.use_own_data()
            check_data(experiment, [*experiment.train_datasets, *experiment.test_datasets])
            found[used] = ""
        except UsageError as error:
            found[used] = str(error)
    return found[used]
