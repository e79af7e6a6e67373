"""The command that runs tables, with a stand-in for train_net.py: what is run, skipped, resumed, shared, told."""

import csv
import os
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from commands import refusal, status
import yaml
from d2_balanced.analysis.panels import curve_figure
from d2_balanced.tables import cli, figures, plan
from d2_balanced.tables.files import select_tables
from d2_balanced.tables.plan import Run
from d2_balanced.tables.state import adopt, finished_runs

FAKE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fake_train_net.py")
QUICK = {"config": "configs/coco/faster_rcnn_R_50_FPN_1x.yaml", "tiny": "configs/quick/faster_rcnn_R_18_FPN.yaml"}
BEHAVIOUR = {"7": "bad", "8": "slow"}  # by the row's SOLVER.WARMUP_ITERS


def row(name, warmup=50, **more):
    kind = {} if {"eval_of", "cannot_run"} & set(more) else {**QUICK, "overrides": {"SOLVER.WARMUP_ITERS": warmup}}
    return {"name": name, "paper": {"AP": 30.5}, **kind, **more}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """``run(rows, *words)``: the exit status of the command on a table with these rows."""

    def command(self, folder, seed, *, weights="", others=(), evaluate=False):
        config = tmp_path / f"{self.key}-{seed}.yaml"
        cfg = self.cfg.clone()
        cfg.SEED = seed
        config.write_text(cfg.dump())
        behaviour = "evaluate" if weights or evaluate else BEHAVIOUR.get(str(cfg.SOLVER.WARMUP_ITERS), "good")
        behaviour = "augmented" if cfg.TEST.AUG.ENABLED else behaviour
        return [sys.executable, "-S", FAKE, folder, str(config), behaviour]

    monkeypatch.setattr(Run, "command", command)
    monkeypatch.setattr(cli, "without_unusable_data", lambda planned: planned)
    monkeypatch.chdir(tmp_path)

    def call(rows, *words, name="table_1"):
        content = {name: {"title": "A table", "metrics": ["AP", "FPS"], "rows": rows}}
        (tmp_path / "tables.yaml").write_text(yaml.safe_dump(content))
        return status(cli.main, "tables.yaml", "--output", "out", "--seeds", "1", "2", *words)

    return call


def starts(folder):
    """How often a run was started, by its folder."""
    return {path.parent.relative_to(folder).as_posix(): len(path.read_text().split()) for path in
            sorted(folder.rglob("starts"))}  # fmt: skip


def test_runs_once_reports_and_skips_what_is_finished(run, tmp_path, capsys):
    rows = [row("plain"), row("twin"), row("other", 60), row("theirs", cannot_run="not ours")]
    assert run(rows, "--jobs", "2") == 0
    assert list(starts(tmp_path / "out" / "runs").values()) == [1, 1, 1, 1]  # two configs, two seeds
    text = capsys.readouterr().out
    assert "41.50 +- 0.71" in text and "the paper's AP" in text and "30.5" in text
    assert "twin: the same run as plain" in text and "theirs: not run: not ours" in text
    assert "no difference seen" in text and "Not measured here: FPS" in text
    assert run(rows) == 0
    assert "4 of them finished already, for the same config and seed" in capsys.readouterr().out
    assert run([row("renamed")], name="table_9") == 0  # another table's row of equal config
    assert list(starts(tmp_path / "out" / "runs").values()) == [1, 1, 1, 1]


def test_csv_keeps_what_is_measured_apart_from_the_papers_figures(run, tmp_path):
    assert run([row("plain"), row("other", 60)]) == 0
    with open(next((tmp_path / "out").rglob("table_1.csv")), newline="") as file:
        lines = {(line["row"], line["metric"]): line for line in csv.DictReader(file)}
    other = lines["other", "AP"]
    assert (float(other["mean"]), float(other["difference"]), other["papers_figure"]) == (41.5, 0.0, "30.5")
    assert other["difference_seen"] == "False" and other["baseline"] == "plain" and other["runs"] == "2"
    assert lines["plain", "AP"]["difference"] == "" and lines["plain", "FPS"]["mean"] == ""


def test_costs_of_some_seeds_stand_for_all(run, tmp_path, capsys):
    assert run([row("plain"), row("other", 60)]) == 0
    (folder,) = (tmp_path / "out").glob("runs/*plain*/seed2")
    (folder / "speed.json").write_text('{"FPS": 8.0, "step_s": 0.25, "memory_GB": 1.5}')
    capsys.readouterr()
    assert run([row("plain"), row("other", 60)], "--report") == 0
    header, _, plain, other = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    cells = [dict(zip(header.split("|"), line.split("|"))) for line in (plain, other)]
    cells = [{name.strip(): value.strip() for name, value in each.items()} for each in cells]
    assert [each["step_s"] for each in cells] == ["0.25", "-"] and cells[0]["runs"] == "2"


def test_figures_show_rows_beside_the_baseline(run, tmp_path, monkeypatch):
    drawn = {}

    def draw(title, panels, **options):
        drawn[title.splitlines()[1]] = {panel[0]: panel[3] for panel in panels}
        return curve_figure(title, panels, **options)

    monkeypatch.setattr(figures, "curve_figure", draw)
    looser = row("evaluated", eval_of="plain", overrides={"MODEL.ROI_HEADS.NMS_THRESH_TEST": 0.3})
    assert run([row("plain"), row("twin"), row("other", 60), looser]) == 0
    names = sorted(path.name for path in (tmp_path / "out").rglob("table_1*"))
    assert names == ["table_1-by-iou.png", "table_1-over-iterations.png", "table_1.csv", "table_1.md"]
    over_time, by_iou = drawn["mean +- SD over the seeds"], drawn["difference +- 2 standard errors"]
    assert list(over_time) == ["other"] and list(by_iou) == ["other", "evaluated"]  # neither the twin nor the baseline
    iterations, means, spreads = over_time["other"]["this row"]
    assert list(iterations) == [120, 240] and np.allclose(means, [13.4, 25.4]) and np.allclose(spreads, 0.5**0.5)
    assert list(over_time["other"]) == ["plain", "this row"]
    thresholds, gains, errors = by_iou["other"]["this row"]
    assert np.allclose(thresholds, np.arange(0.5, 1, 0.05)) and np.allclose(gains, 0)
    assert np.allclose(errors, 2 * (0.5 / 2 + 0.5 / 2) ** 0.5)  # each arm's variance over its two seeds

    (history,) = (tmp_path / "out").glob("runs/*other*/seed1/metrics.json")
    history.write_text("nothing\n\n")  # costs its panel alone
    assert run([row("plain"), row("other", 60)], "--report") == 0
    assert list(drawn["difference +- 2 standard errors"]) == ["other"] and "other" not in drawn["mean +- SD over the seeds"]


def test_a_failed_run_is_told_and_the_others_go_on(run, tmp_path, capsys):
    rows = [row("broken", 7), row("of broken", eval_of="broken"), row("plain")]
    assert run(rows) == 1
    told = capsys.readouterr()
    assert "status 3" in told.out and "it went wrong" in told.out
    assert "there are no weights to evaluate" in told.out
    assert "broken: seed 1, 2: failed" not in told.out  # the logs differ, by seed
    assert sum(starts(tmp_path / "out" / "runs").values()) == 2
    assert "41.50" in told.out


def test_an_evaluation_takes_the_weights_of_its_training(run, tmp_path):
    rows = [row("evaluated", eval_of="plain", overrides={"MODEL.ROI_HEADS.NMS_THRESH_TEST": 0.3}), row("plain")]
    assert run(rows, "--row", "evaluated") == 0
    assert len(starts(tmp_path / "out" / "runs")) == 4
    assert run(rows) == 0 and set(starts(tmp_path / "out" / "runs").values()) == {1}
    (metrics,) = (tmp_path / "out").glob("runs/*evaluated*/seed1/inference/*/metrics.json")
    os.utime(metrics, (1, 1))  # the weights are newer
    assert run(rows) == 0
    assert sorted(starts(tmp_path / "out" / "runs").values()) == [1, 1, 1, 2]


def test_an_ensemble_waits_for_both_trainings(run, tmp_path, capsys):
    rows = [row("both", eval_of="plain", ensemble_with=["other"]), row("plain"), row("other", 60)]
    assert run(rows, "--row", "both") == 0 and run(rows) == 0
    assert len(starts(tmp_path / "out" / "runs")) == 6 and set(starts(tmp_path / "out" / "runs").values()) == {1}
    (weights,) = (tmp_path / "out").glob("runs/*plain*/seed1/model_final.pth")
    os.utime(weights, (1, 1))
    (metrics,) = (tmp_path / "out").glob("runs/*both*/seed1/inference/*/metrics.json")
    os.utime(metrics, (2, 2))  # newer than the weights that it evaluates, older than those beside them
    assert run(rows) == 0 and sorted(starts(tmp_path / "out" / "runs").values()) == [1, 1, 1, 1, 1, 2]
    assert run([row("broken", 7), row("plain"), row("of broken", eval_of="plain", ensemble_with=["broken"])]) == 1
    assert "there are no weights to evaluate" in capsys.readouterr().out


def test_the_two_detectors_of_rga_prm_are_evaluated_as_one():
    (row,) = plan.plan_rows(select_tables(["RGA_PRM:table_5"], ["two detectors, ensemble"]), plan.Options())
    fractions = [each.cfg.MODEL.ROI_HEADS.POSITIVE_FRACTION for each in plan.runs_of([row])]
    assert fractions == [0.5, 0.1, 0.5] and plan.runs_of([row])[-1] is row.run
    words = row.run.command("out", 3, weights="first.pth", others=["second.pth"])
    assert "--eval-only" in words and words[words.index("--ensemble") + 1] == "second.pth"
    assert words[words.index("MODEL.WEIGHTS") + 1] == "first.pth" and words.index("--ensemble") < words.index("MODEL.WEIGHTS")


def test_a_row_with_test_time_augmentation_has_its_results(run, tmp_path, capsys):
    rows = [row("plain"), row("multi-scale", eval_of="plain", overrides={"TEST.AUG.ENABLED": True})]
    assert run(rows) == 0 and run(rows) == 0
    assert set(starts(tmp_path / "out" / "runs").values()) == {1}
    cells = {line.split("|")[1].strip(): line.split("|")[3].strip() for line in capsys.readouterr().out.splitlines()
             if line.startswith("| ")}  # fmt: skip
    assert cells["plain"] == "41.50 +- 0.71" and cells["multi-scale"] == "51.50 +- 0.71"


def test_killed_in_its_last_evaluation_it_is_only_evaluated(run, tmp_path):
    assert run([row("plain")]) == 0
    metrics = next((tmp_path / "out").rglob("seed2/inference/generated_val/metrics.json"))
    os.utime(metrics, (1, 1))
    assert run([row("plain")], "--report") == 0
    assert os.path.getmtime(metrics) == 1
    config = metrics.parents[2] / "config.yaml"
    written = os.path.getmtime(config)
    assert run([row("plain")]) == 0
    assert os.path.getmtime(metrics) > 1 and os.path.getmtime(config) == written


@pytest.fixture
def ctrl_c_is_heard():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c_is_heard")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_it_goes_on_where_it_was(run, tmp_path, capsys, number):
    def stop():
        while not list(tmp_path.rglob("is_waiting")):
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=stop)
    thread.start()
    assert run([row("slow", 8), row("plain")]) == 130
    thread.join()
    assert "The same command goes on from here" in capsys.readouterr().out
    assert not starts(tmp_path) and len(list(tmp_path.rglob("last_checkpoint"))) == 1
    for waiting in tmp_path.rglob("is_waiting"):  # the other seed has not been started; now it need not wait
        (waiting.parents[1] / "seed2").mkdir(exist_ok=True)
        (waiting.parents[1] / "seed2" / "last_checkpoint").touch()
    assert run([row("slow", 8), row("plain")]) == 0
    assert set(starts(tmp_path).values()) == {1}


def test_a_folder_in_use_is_left_alone(run, tmp_path, capsys):
    assert run([row("plain")], "--report") == 0
    folder = next(iter((tmp_path / "out").rglob("table_1.csv")))
    name = next(csv.DictReader(open(folder, newline="")))["run"]
    held = tmp_path / "out" / "runs" / name / "seed1"
    held.mkdir(parents=True)
    program = "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print(1, flush=True)"
    holder = subprocess.Popen([sys.executable, "-S", "-c", program + "; time.sleep(60)", held / ".lock"],
                              stdout=subprocess.PIPE)  # fmt: skip
    holder.stdout.readline()
    try:
        assert run([row("plain")]) == 1
        assert "another process is running it" in capsys.readouterr().out and not (held / "starts").exists()
    finally:
        holder.kill()
        holder.wait()
    assert run([row("plain")]) == 0


def test_results_of_another_config_are_not_taken_for_this_one(run, tmp_path, capsys):
    assert run([row("plain")]) == 0
    config = next((tmp_path / "out").rglob("seed1/config.yaml"))
    config.write_text(config.read_text().replace("BASE_LR: 0.03", "BASE_LR: 0.04"))
    assert run([row("plain")]) == 2
    assert "holds the results of another config" in capsys.readouterr().err


def test_finished_runs_are_adopted_by_config_and_seed(run, tmp_path, capsys):
    assert run([row("plain"), row("other", 60)]) == 0
    (tmp_path / "out").rename(tmp_path / "disk")
    (tmp_path / "before").mkdir()
    (tmp_path / "before" / "linked").symlink_to(tmp_path / "disk")  # runs are often on another disk
    lazy = tmp_path / "before" / "lazy"
    lazy.mkdir()
    (lazy / "config.yaml").write_text("train: {seed: 1}")
    assert run([row("mine")], "--adopt", "before", "--seeds", "1", "3") == 0
    text = capsys.readouterr().out
    assert "seed 1: taken over from" in text and "not taken over: before/lazy" in text
    assert len(re.findall(r"not taken over: .*other.*: no row has its config and seed", text)) == 2
    assert list(starts(tmp_path / "out" / "runs").values()) == [1, 1]
    adopted = next((tmp_path / "out").rglob("seed1/model_final.pth"))
    assert adopted.is_symlink() and not next((tmp_path / "out").rglob("seed3/model_final.pth")).is_symlink()
    assert run([row("mine")], "--adopt", "nowhere") == 2


def test_a_chosen_row_is_reported_among_the_others(run, tmp_path, capsys):
    rows = [row("plain"), row("other", 60), row("third", 70)]
    assert run(rows, "--row", "other") == 0
    assert "against" not in capsys.readouterr().out  # its baseline has not been run
    assert run(rows, "--row", "plain") == 0
    text = capsys.readouterr().out
    assert "AP against plain" in text and text.count("41.50") == 2 and "third: seed 1, 2: not finished" in text
    assert len(starts(tmp_path / "out" / "runs")) == 4


def test_an_adopted_folder_is_not_mixed_with_an_own_one(run, tmp_path):
    assert run([row("plain")], "--seeds", "1") == 0
    finished, _ = finished_runs(str(tmp_path / "out"))
    planned = plan.plan_rows(cli.select_tables(["tables.yaml"]), plan.Options())
    (tasks,) = cli._tasks(planned, cli.argument_parser().parse_args(["--output", "out", "--seeds", "1"])).values()
    assert adopt(tasks[0], finished) == ""


@pytest.mark.parametrize("content", ["", "[]", '{"metrics": '])
def test_a_damaged_result_costs_one_run_and_not_the_table(run, tmp_path, capsys, content):
    assert run([row("plain"), row("other", 60)]) == 0
    damaged = next((tmp_path / "out").rglob("*plain*/seed1/inference/generated_val/metrics.json"))
    damaged.write_text(content)
    capsys.readouterr()
    assert run([row("plain"), row("other", 60)]) == 0
    text = capsys.readouterr().out
    assert re.search(r"- plain: seed 1: .*metrics.json is not (a JSON file|the metrics.json of an evaluation)", text)
    assert [line.split("|")[2].strip() for line in text.splitlines() if line.startswith(("| plain", "| other"))] == ["1", "2"]


def test_another_scale_other_data_and_overrides_have_files_of_their_own(run, tmp_path):
    assert run([row("plain")]) == 0
    assert run([row("plain")], "--report", "--scale", "coco") == 0
    assert run([row("plain")], "--report", "--overrides", "SOLVER.MAX_ITER", "7") == 0
    names = sorted(path.name for path in (tmp_path / "out").rglob("table_1*.md"))
    assert len(names) == 3 and "table_1.md" in names and "table_1-coco.md" in names
    assert "41.50" in next((tmp_path / "out").rglob("table_1.md")).read_text()


def test_tables_of_two_files_with_one_name_are_refused(run, tmp_path, capsys):
    assert run([row("plain")]) == 0
    twin = tmp_path / "elsewhere" / tmp_path.name / "tables.yaml"
    twin.parent.mkdir(parents=True)
    twin.write_text((tmp_path / "tables.yaml").read_text())
    assert str(twin) in refusal(cli.main, "tables.yaml", twin, "--output", "out")
    assert cli.main(["tables.yaml", "tables.yaml", "--output", "out", "--seeds", "1", "2"]) == 0


def test_only_the_final_checkpoint_stays(run, tmp_path):
    assert run([row("plain")]) == 0
    folder = next((tmp_path / "out").rglob("seed1"))
    (folder / "model_best.pth").touch()
    assert run([row("plain")], "--final-only") == 0
    assert sorted(path.name for path in folder.glob("*.pth")) == ["model_final.pth"]


@pytest.mark.parametrize("words, told", [
    (["--overrides", "SOLVER.BASE_LR"], "takes pairs"),
    (["--overrides", "SOLVER.BASE_LRR", "1"], "table_1, row 'plain' at scale tiny: SOLVER.BASE_LRR.*Did you mean"),
    (["--row", "plein"], "No row is called 'plein'.*Did you mean plain"),
    (["--jobs", "0"], "--jobs: has to be 1 or more"),
])  # fmt: skip
def test_misuse_is_told_before_anything_runs(run, tmp_path, capsys, words, told):
    assert run([row("plain")], *words) == 2
    assert re.search(told, capsys.readouterr().err, re.DOTALL)
    assert not (tmp_path / "out").exists()
