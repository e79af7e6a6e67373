"""Every row of every table is a run that can be started: its configs are accepted, its models built, a step taken."""

import functools

import pytest
import torch
import twins
from d2_balanced.analysis.parameters import model_without_values
from d2_balanced.engine.hooks import EndIteration
from d2_balanced.engine.trainer import BalancedTrainer
from d2_balanced.tables.files import find_papers, read_tables
from d2_balanced.tables.identity import identity
from d2_balanced.tables.plan import Options, plan_rows, runs_of

TABLES = {table.label: table for path in find_papers().values() for table in read_tables(path)}
_found = {}


@functools.lru_cache(maxsize=None)
def planned(label, scale):
    return plan_rows([(TABLES[label], TABLES[label].rows)], Options(scale))


def tables_with_runs(scale):
    return [label for label, table in TABLES.items() if not all(row.why_not(scale) for row in table.rows)]


def once(function, run, only=""):
    """What ``function`` returns for a run; called once for all that have the same settings below ``only``."""
    settings = {key: value for key, value in identity(run.cfg).items() if key.startswith(only)}
    kind = (function, repr(sorted(settings.items())))
    if kind not in _found:
        _found[kind] = function(run)
    return _found[kind]


@pytest.mark.parametrize("label", TABLES)
def test_rows_have_figures_and_run_or_say_why_not(label):
    for scale in ("tiny", "coco"):
        for row in planned(label, scale):
            assert (row.run is None) == bool(row.row.why_not(scale)), row.row.name
    assert any(row.paper for row in TABLES[label].rows)


@pytest.mark.parametrize("label", tables_with_runs("tiny"))
def test_every_quick_row_trains_and_detects(label):
    detections = [once(detections_after_a_step, run) for run in runs_of(planned(label, "tiny"))]
    assert detections and min(detections) > 0


def detections_after_a_step(run):
    experiment = run.experiment()
    experiment.set_run(seed=0, device="cpu")
    batch = twins.inputs(run.cfg)
    model = take_a_step(experiment, batch)
    return len(next(iter(twins.detections(model, batch).values())))


def take_a_step(experiment, batch):
    torch.manual_seed(0)
    model = experiment.build_model()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = experiment.build_optimizer(model)
    trainer = BalancedTrainer(model, [batch], optimizer, experiment.build_scheduler(optimizer))
    trainer.register_hooks([*experiment.build_method_hooks(model), EndIteration(model, 1)])
    trainer.train(0, 1)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert any(not torch.equal(p, old) for p, old in zip(model.parameters(), before))
    return model


@pytest.mark.parametrize("label", tables_with_runs("coco"))
def test_every_model_of_the_paper_is_built(label):
    """Without values, which takes no time; tests/config/test_first_step.py runs such models."""
    sizes = [once(number_of_parameters, run, only="MODEL.") for run in runs_of(planned(label, "coco"))]
    assert sizes and min(sizes) > 10**6


def number_of_parameters(run):
    return sum(p.numel() for p in model_without_values(run.experiment()).parameters())
