"""What surrounds a step: adaptive modules, evaluation, the best checkpoint, signals, logs, results."""

import csv
import io
import json
import logging
import math
import os
import re
import signal

import pytest
import torch
from d2_balanced.engine import history
from d2_balanced.engine.best import BestCheckpoint
from d2_balanced.engine.hooks import Checkpoints, EndIteration, Evaluate, StopOnSignal
from d2_balanced.engine.history import ResultsTable, plot_adaptive, plot_results, results_rows
from d2_balanced.engine.writers import MetricsFile, ProgressBar, WritePeriodically
from d2_balanced.utils.json_lines import read_metrics
from detectron2.engine import HookBase
from detectron2.utils.logger import setup_logger
from engine_toys import ToyModel, toy_trainer


class Adaptive(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.iterations = []

    def end_iteration(self, iteration):
        self.iterations.append(iteration)
        return {"threshold": torch.tensor(0.4 + 0.01 * iteration), "beta": 1.0}


def test_modules_that_adapt_are_called_after_every_step_and_read_each_period():
    model = ToyModel()
    model.inner = torch.nn.Sequential(Adaptive())
    trainer = toy_trainer([EndIteration(model, log_period=3)], model=model)
    trainer.train(0, 7)
    assert model.inner[0].iterations == list(range(7))
    values = trainer.storage.history("threshold").values()
    assert [(round(value, 4), iteration) for value, iteration in values] == [(0.42, 2), (0.45, 5), (0.46, 6)]
    assert trainer.storage.latest()["beta"] == (1.0, 6)


def test_values_of_several_modules_of_a_kind_are_told_apart():
    model = ToyModel()
    model.stages = torch.nn.ModuleList([Adaptive(), Adaptive()])
    trainer = toy_trainer([EndIteration(model, log_period=1)], model=model)
    trainer.train(0, 2)
    names = {"stages.0/threshold", "stages.0/beta", "stages.1/threshold", "stages.1/beta"}
    assert names <= set(trainer.storage.latest()) and "threshold" not in trainer.storage.latest()


class Evaluator:
    """Returns AP values in turn; draws random numbers, as a model in inference may."""

    def __init__(self, values=(10.0,) * 100):
        self.values = list(values)

    def __call__(self):
        torch.rand(17)
        value = self.values.pop(0)
        return {"bbox": {"AP": value, "APs": math.nan, "AP-cell": 3.0}} if value is not None else {}


def test_evaluation_runs_each_period_and_once_at_the_end_without_a_trace():
    plain, evaluated = toy_trainer(), toy_trainer([Evaluate(3, Evaluator(range(10)))])
    plain.train(0, 6)
    evaluated.train(0, 6)
    assert torch.equal(plain.model.weight, evaluated.model.weight)
    assert evaluated.storage.history("bbox/AP").values() == [(0.0, 2), (1.0, 5)]
    assert "bbox/APs" not in evaluated.storage.histories()
    only_at_the_end = toy_trainer([Evaluate(0, Evaluator())])
    only_at_the_end.train(0, 6)
    assert only_at_the_end.evaluation == (5, {"bbox/AP": 10.0, "bbox/AP-cell": 3.0})


def test_no_evaluation_after_a_failure_in_the_last_iteration():
    class Fail(HookBase):
        def after_step(self):
            if self.trainer.iter == 4:
                raise RuntimeError("broken")

    evaluator = Evaluator([1.0])
    with pytest.raises(RuntimeError, match="broken"):
        toy_trainer([Fail(), Evaluate(0, evaluator)]).train(0, 5)
    assert evaluator.values == [1.0]


class BestFolder:
    """Stands for a checkpointer: notes what is saved."""

    def __init__(self, folder):
        os.makedirs(folder, exist_ok=True)
        self.save_dir, self.saved = str(folder), []

    def save(self, name, iteration):
        self.saved.append((name, iteration))


def run_best(folder, values, start=0, stop=None, patience=0, metric="bbox/AP"):
    """One iteration an evaluation; returns the checkpointer, the hook and the trainer."""
    checkpointer = BestFolder(folder)
    best = BestCheckpoint(checkpointer, metric, patience)
    trainer = toy_trainer([Evaluate(1, Evaluator(values)), best])
    trainer.train(start, start + len(values) if stop is None else stop)
    return checkpointer, best, trainer


def test_best_checkpoint_is_the_highest_and_the_first_of_equals(tmp_path):
    checkpointer, _, _ = run_best(tmp_path, [10.0, 30.0, 30.0, 20.0, 31.0])
    assert checkpointer.saved == [("model_best", 0), ("model_best", 1), ("model_best", 4)]
    saved = json.loads((tmp_path / "best.json").read_text())
    assert (saved["metric"], saved["iteration"], saved["value"]) == ("bbox/AP", 4, 31.0)
    assert [evaluation["value"] for evaluation in saved["evaluations"]] == [10.0, 30.0, 30.0, 20.0, 31.0]


@pytest.mark.parametrize("bad", [math.nan, -1.0, None])
def test_no_metric_never_counts_as_best(tmp_path, bad, caplog):
    checkpointer, best, _ = run_best(tmp_path, [bad, 5.0, bad])
    assert checkpointer.saved == [("model_best", 1)] and best.best == {"iteration": 1, "value": 5.0}
    missing, _, _ = run_best(tmp_path / "other", [5.0], metric="segm/AP")
    assert missing.saved == [] and "segm/AP, which is missing" in caplog.text


def test_best_value_survives_a_resume(tmp_path):
    run_best(tmp_path, [10.0, 30.0, 20.0])
    checkpointer, best, _ = run_best(tmp_path, [25.0, 35.0], start=3)
    assert checkpointer.saved == [("model_best", 4)]
    assert [evaluation["iteration"] for evaluation in best.evaluations] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("lost", ["[", '{"metric": "bbox/AP", "evaluations": [{"iteration": 1, "value": NaN}]}', None])
def test_a_lost_history_is_read_from_the_metrics(tmp_path, caplog, lost):
    run_best(tmp_path, [10.0, 30.0, 20.0])
    (tmp_path / "best.json").write_text(lost) if lost else os.remove(tmp_path / "best.json")
    lines = [{"iteration": n, **values} for n, values in enumerate([{"bbox/AP": 10.0}, {"bbox/AP": 30.0}, {"lr": 0.1}])]
    (tmp_path / "metrics.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    checkpointer, best, _ = run_best(tmp_path, [25.0, 35.0], start=3)
    assert checkpointer.saved == [("model_best", 4)] and "is taken from metrics.json" in caplog.text
    assert [evaluation["iteration"] for evaluation in best.evaluations] == [0, 1, 3, 4]


def test_evaluations_that_are_done_again_are_not_counted_twice(tmp_path):
    run_best(tmp_path, [10.0, 20.0, 30.0, 30.0])
    checkpointer, best, _ = run_best(tmp_path, [30.0, 30.0], start=2)
    assert checkpointer.saved == [("model_best", 2)]
    assert [(e["iteration"], e["value"]) for e in best.evaluations] == [(0, 10.0), (1, 20.0), (2, 30.0), (3, 30.0)]


def test_patience_ends_training_also_across_a_resume(tmp_path):
    _, _, trainer = run_best(tmp_path / "a", [10.0, 20.0, 19.0, 18.0, 17.0, 16.0], patience=3)
    assert trainer.last_finished_iter == 4 and "has not improved in 3 evaluations" in trainer.stop_reason
    assert trainer.completed and not trainer.interrupted
    run_best(tmp_path / "b", [10.0, 20.0, 19.0])
    _, _, resumed = run_best(tmp_path / "b", [18.0, 17.0, 16.0], start=3, patience=3)
    assert resumed.last_finished_iter == 4
    with pytest.raises(ValueError, match="BestCheckpoint: patience must be 0 .* got -1"):
        BestCheckpoint(BestFolder(tmp_path), patience=-1)


def test_an_early_stop_writes_the_final_checkpoint(tmp_path):
    checkpointer = BestFolder(tmp_path)
    trainer = toy_trainer([Evaluate(1, Evaluator([2.0, 1.0, 1.0])), BestCheckpoint(checkpointer, patience=1)])
    checkpointer.model = trainer.model
    trainer.register_hooks([Checkpoints(checkpointer, period=100)])
    trainer.train(0, 50)
    assert checkpointer.saved == [("model_best", 0), ("model_final", 1)]


def test_a_signal_ends_after_the_step_and_the_handler_is_given_back():
    class Signal(HookBase):
        def before_step(self):
            if self.trainer.iter == 3:
                os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    trainer = toy_trainer([StopOnSignal(), Signal()])
    trainer.train(0, 100)
    assert (trainer.stop_reason, trainer.last_finished_iter, trainer.interrupted) == ("SIGTERM", 3, True)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def log_to(folder, period, evaluate_every=4):
    def writers(start_iter, max_iter):
        return [MetricsFile(str(folder / "metrics.json"), start_iter, period), ResultsTable(str(folder), 2.5)]

    return [Evaluate(evaluate_every, Evaluator()), WritePeriodically(writers, period)]


def untimed(folder):
    ignored = ("time", "data_time", "memory_mb", "eta_seconds")
    lines = read_metrics(str(folder / "metrics.json"))
    return [{name: value for name, value in line.items() if name not in ignored} for line in lines]


def resumed_from(trainer, hooks):
    other = toy_trainer()
    other.model.load_state_dict(trainer.model.state_dict())
    other.register_hooks(hooks)  # after LearningRate, as in a run
    other.load_state_dict(trainer.state_dict())
    return other


@pytest.mark.parametrize("stop", [3, 5, 8, 10])
def test_metrics_of_a_resumed_run_are_those_of_one_that_never_stopped(tmp_path, stop):
    (tmp_path / "straight").mkdir(), (tmp_path / "parts").mkdir()
    straight = toy_trainer()
    straight.register_hooks(log_to(tmp_path / "straight", 3))
    straight.train(0, 16)
    first = toy_trainer()
    first.register_hooks(log_to(tmp_path / "parts", 3))

    class Stop(HookBase):
        def before_step(self):
            if self.trainer.iter + 1 == stop:
                self.trainer.request_stop("test")

    first.register_hooks([Stop()])
    first.train(0, 16)
    resumed_from(first, log_to(tmp_path / "parts", 3)).train(stop, 16)
    assert untimed(tmp_path / "parts") == untimed(tmp_path / "straight")
    assert [line["iteration"] for line in untimed(tmp_path / "parts")] == [2, 3, 5, 7, 8, 11, 14, 15]


def test_metrics_of_iterations_that_are_done_again_and_half_lines_are_dropped(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text("".join(json.dumps({"iteration": k, "total_loss": 1.0}) + "\n" for k in (1, 3, 5, 7)) + '{"iterat')
    MetricsFile(str(path), start_iter=4, period=2).close()
    assert [line["iteration"] for line in read_metrics(str(path))] == [1, 3]
    assert path.read_text().count("\n") == 2


@pytest.mark.parametrize("line, reason", [
    ('{"iterat', "line 2: "),
    ("3", "line 2: expected a JSON object, got int"),
    ('{"total_loss": 1.0}', "line 2: 'iteration' is missing"),
    ('{"iteration": "4"}', "line 2: 'str' object cannot be interpreted as an integer"),
])  # fmt: skip
def test_a_damaged_line_of_metrics_is_told_with_its_number(line, reason, tmp_path):
    path = tmp_path / "metrics.json"
    damaged = f'{{"iteration": 0}}\n{line}\n{{"iteration": 4}}\n'
    path.write_text(damaged)
    for read in (read_metrics, lambda path: MetricsFile(path, start_iter=9, period=2)):
        with pytest.raises(ValueError, match=re.escape(f"{path}, {reason}")):
            read(str(path))
    assert path.read_text() == damaged, "a resume that is refused keeps the file"


def test_results_table_has_a_row_per_log_line_and_a_picture(tmp_path):
    trainer = toy_trainer()
    trainer.register_hooks(log_to(tmp_path, 3))
    trainer.train(0, 8)
    with open(tmp_path / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["iteration", "epoch", "total_loss", "loss_a", "loss_b", "bbox/AP", "lr", "memory_mb"]
    assert [(row["iteration"], row["epoch"], row["bbox/AP"]) for row in rows] == [
        ("2", "1.2", ""), ("3", "1.6", "10.0"), ("5", "2.4", ""), ("7", "3.2", "10.0"),
    ]
    assert (tmp_path / "results.png").read_bytes()[:4] == b"\x89PNG"


def test_results_of_nothing(tmp_path):
    assert results_rows(str(tmp_path / "metrics.json"), 1.0) == []
    plot_results([], str(tmp_path / "results.png"))
    plot_adaptive([], str(tmp_path / "adaptive.png"))
    assert not os.listdir(tmp_path)


def test_what_adapts_has_a_panel_per_component_in_a_picture_of_its_own(tmp_path, monkeypatch):
    panels = {}
    monkeypatch.setattr(history, "_draw", lambda drawn, path: panels.update({path: drawn}))
    row = {
        "iteration": 4, "epoch": 1.0, "total_loss": 2.0, "lr": 0.1, "roi_head/num_fg_samples": 9.0, "memory_mb": 5.0,
        "matcher/threshold": 0.4, "matcher/statistic": 0.5, "matcher/num_positives": 7.0, "heads.1.loss/beta": 0.9,
        "fast_rcnn/cls_accuracy": 0.8, "mask_rcnn/false_positive": 0.1, "bbox/AP": 30.0, "bbox/APs": 3.0,
    }  # fmt: skip
    plot_results([row], "results")
    plot_adaptive([row], "one point")
    assert "one point" not in panels or not panels["one point"], "a point is no curve"
    plot_adaptive([row, {**row, "iteration": 9}], "adaptive")
    assert {panel: set(curves) for panel, curves in panels["adaptive"].items()} == {
        "matcher": {"threshold", "statistic"}, "heads.1.loss": {"beta"},
    }
    assert {panel: set(curves) for panel, curves in panels["results"].items()} == {
        "loss": {"total_loss"}, "AP": {"bbox/AP"}, "learning rate": {"lr"},
        "samples per image": {"roi_head/num_fg_samples", "matcher/num_positives"},
        "accuracy on samples": {"fast_rcnn/cls_accuracy", "mask_rcnn/false_positive"},
    }


def test_progress_bar_replaces_the_lines_on_the_terminal_only(tmp_path, capsys):
    logging.getLogger("detectron2").handlers.clear()  # of earlier tests
    setup_logger(str(tmp_path / "log.txt"), name="detectron2")
    try:
        class Line(HookBase):
            def after_step(self):
                logging.getLogger("detectron2.utils.events").info("a line of losses")
                logging.getLogger("detectron2.engine").info("something else")

        bar = io.StringIO()
        trainer = toy_trainer([Line()])
        trainer.register_hooks([ProgressBar(bar)])
        trainer.train(0, 3)
    finally:
        logging.getLogger("detectron2").handlers.clear()
    assert "3/3" in bar.getvalue() and "loss " in bar.getvalue() and "lr 0.1" in bar.getvalue()
    said = capsys.readouterr()
    assert "a line of losses" not in said.out + said.err and "something else" in said.out + said.err
    assert (tmp_path / "log.txt").read_text().count("a line of losses") == 3


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: Checkpoints(None, 0), "Checkpoints: period must be 1 or more iterations, got 0"),
        (lambda: Evaluate(-1, None), "Evaluate: period must be 0 .* or more iterations, got -1"),
        (lambda: WritePeriodically(None, 0), "WritePeriodically: period must be 1 or more iterations, got 0"),
    ],
)
def test_wrong_periods_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
