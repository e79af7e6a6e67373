"""Recording in a run: the file, exact resume, nothing changed in training; figures; inspection of checkpoints."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from d2_balanced.analysis import plot, training_samples
from d2_balanced.recording import hook as hook_module
from d2_balanced.recording.gradient_norms import GradientNorms, group_of
from d2_balanced.recording.counts import ImbalanceCounts
from d2_balanced.recording.file import FILE, drop_from, merge, read_recording
from d2_balanced.analysis.imbalance_figures import FIGURES
from d2_balanced.config import load_yaml
from d2_balanced.engine.open import open_experiment
from detectron2.modeling import build_model
from PIL import Image
from tiny_runs import TINY, checkpoint, data_arguments, differences, make_dataset, quick_config, train_net

BRANCHES = ["MODEL.BALANCED.BRANCHES", "[{'POSITIVE_FRACTION': 0.5}, {'POSITIVE_FRACTION': 0.1}]"]
RECORD = ["ANALYSIS.RECORD", True, "ANALYSIS.PERIOD", 4, "ANALYSIS.GRADIENT_PERIOD", 3]


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """The command line of a tiny run with two branches, without its output folder and overrides."""
    data = make_dataset(tmp_path_factory.mktemp("data"))
    return ["--config-file", quick_config("faster_rcnn"), *data_arguments(data)]


def run(words, folder, *overrides, **kwargs):
    heads = ["MODEL.ROI_HEADS.NAME", "BalancedROIHeads", *BRANCHES, "SOLVER.MAX_ITER", 6, "SEED", 1]
    return train_net(*words, "--output-dir", folder, *kwargs.pop("before", ()), *TINY, *heads, *overrides, **kwargs)


@pytest.fixture(scope="module")
def recorded(words, tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded")
    assert run(words, folder, *RECORD) == 0
    return str(folder)


def test_windows_and_gradients_of_a_run(recorded):
    recording = read_recording(recorded)
    assert [(first, last) for first, last, _ in recording.windows] == [(0, 3), (4, 5)], "the last one is not full"
    assert all(set(counts) == {(0, 0), (0, 1)} for _, _, counts in recording.windows)
    merged = merge(recording.windows)
    assert merged[0, 0]["images"] == merged[0, 1]["images"] == [12]
    assert merged[0, 0]["positives"] > merged[0, 1]["positives"] >= 1
    for iteration, norms in recording.gradients:
        assert set(norms) == {"branch 0", "branch 1", "rpn", "sum"}
        assert 0 < norms["sum"] <= norms["branch 0"] + norms["branch 1"] + 1e-6
    assert [iteration for iteration, _ in recording.gradients] == [0, 3]


def test_training_is_bit_identical_with_and_without(recorded, words, tmp_path):
    assert run(words, tmp_path) == 0
    assert not os.path.exists(tmp_path / FILE)
    without, with_recording = checkpoint(tmp_path), checkpoint(recorded)
    for part in ("optimizer", "recent_scalars"):
        assert differences(without["trainer"][part], with_recording["trainer"][part]) == []
    assert differences(without["model"], with_recording["model"]) == []


def test_a_resumed_run_records_what_one_without_a_stop_does(recorded, words, tmp_path, monkeypatch):
    assert run(words, tmp_path, *RECORD, stop_after=2, monkeypatch=monkeypatch) != 0
    assert [window[:2] for window in read_recording(str(tmp_path)).windows] == [(0, 1)], "what there is, at the stop"
    assert run(words, tmp_path, *RECORD, before=["--resume"]) == 0
    lines = [sorted((folder / FILE).read_text().splitlines()) for folder in (tmp_path, type(tmp_path)(recorded))]
    assert lines[0] == lines[1]


def test_lines_that_are_written_again_are_dropped(tmp_path):
    lines = [{"first": 0, "last": 3, "counts": []}, {"iteration": 4, "gradients": {}}]
    lines += [{"iteration": 6, "gradients": {}}, {"first": 4, "last": 6, "counts": []}]
    (tmp_path / FILE).write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"first": 8, "la')
    drop_from(str(tmp_path), window=4, iteration=6)
    assert [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()] == lines[:2]


@pytest.mark.parametrize("overrides, expected", [
    (["MODEL.ROI_HEADS.NAME", "StandardROIHeads", "MODEL.BALANCED.BRANCHES", "[]"], "BalancedROIHeads"),
    (["ANALYSIS.PERIOD", 0], "ANALYSIS.PERIOD: must be 1 or more, got 0"),
    (["ANALYSIS.GRADIENT_PARAMETER", "backbone.res5.0.conv1.weight"], "backbone.bottom_up.res5.0.conv1.weight"),
])  # fmt: skip
def test_what_cannot_be_recorded_is_refused(overrides, expected, words, tmp_path, capfd):
    assert run(words, tmp_path, *RECORD, *overrides) == 2
    assert expected in capfd.readouterr().err


def test_lazy_configs_take_the_same_settings():
    path = quick_config("faster_rcnn", "py")
    assert open_experiment(path).settings.recording == {}
    overrides = ["train.record_imbalance.enabled=true", "train.record_imbalance.period=7"]
    recording = open_experiment(path, overrides).settings.recording
    assert set(recording) == {"period", "gradient_period", "gradient_parameter"} and recording["period"] == 7


class TwoHeads(torch.nn.Module):
    """Losses whose gradients at ``weight`` are known: (3, 0), (0, 4) and, of the RPN, (5, 5); none of the mask's."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))
        self.other = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        w = self.weight * x
        losses = {"loss_cls_stage0_branch0": 3 * w[0], "loss_cls_branch1": 4 * w[1], "loss_rpn_cls": 5 * w.sum()}
        return {**losses, "loss_mask": self.other.sum()}


def test_gradient_norms():
    model = TwoHeads()
    norms = GradientNorms(model, "weight")
    norms.attach()
    model(1.0)
    assert not norms.found, "nobody wanted them"
    norms.wanted = True
    losses = model(1.0)
    assert model.weight.grad is None
    expected = {"branch 0": 3, "branch 1": 4, "rpn": 50**0.5, "mask": 0, "sum": 5}
    assert norms.take() == pytest.approx(expected) and not norms.found
    sum(losses.values()).backward()
    assert model.weight.grad.tolist() == [8, 9]
    norms.remove()
    norms.wanted = True
    model(1.0)
    assert not norms.found


def test_groups_of_losses():
    names = ["loss_cls", "loss_box_reg_stage2", "loss_iou", "loss_mask_stage0", "loss_rpn_loc", "loss_box_reg_branch12"]
    assert [group_of(name) for name in names] == ["box", "box", "box", "mask", "rpn", "branch 12"]


def test_one_command_draws_every_figure(recorded, tmp_path):
    paths = plot.main([recorded, f"again={recorded}", "--output", str(tmp_path / "plots")])
    drawn = [f"{name}.png" for name in FIGURES if name != "predicted_iou"]
    assert [os.path.basename(path) for path in paths] == drawn, "all but what only an IoU branch has"
    for path in paths:
        pixels = np.asarray(Image.open(path).convert("L"))
        assert pixels.shape[0] > 300 and (pixels < 200).mean() > 0.005


def test_the_iterations_that_count_can_be_chosen(recorded, monkeypatch):
    drawn = []
    monkeypatch.setattr(plot, "save_plots", lambda recordings, folder: drawn.append((recordings, folder)) or [])
    plot.main([f"late={recorded}", "--first", "4"])
    plot.main([f"early={recorded}", "--last", "2"])
    windows = [[w[:2] for w in recording.windows] for runs, _ in drawn for recording in runs.values()]
    assert windows == [[(4, 5)], [(0, 3)]]
    assert [list(runs) for runs, _ in drawn] == [["late"], ["early"]]
    assert [[i for i, _ in runs["early"].gradients] for runs, _ in drawn[1:]] == [[0]]
    assert drawn[0][1] == os.path.join(recorded, "imbalance")


def test_curves_are_what_was_counted(recorded):
    recording = read_recording(recorded)
    figure = FIGURES["accuracy"]({"a": recording})
    (line, _), fields = figure.axes[0].lines, [counts[0, 0] for _, _, counts in recording.windows]
    assert line.get_label() == "branch 0" and line.get_xdata().tolist() == [4, 6]
    assert line.get_ydata() == pytest.approx([(f["positives_correct"] / f["positives"])[0] for f in fields])
    assert FIGURES["gradient_norms"]({"a": recording._replace(gradients=[])}) is None


@pytest.mark.parametrize("arguments, message", [
    (["{empty}"], "There is no imbalance.jsonl"),
    (["{run}", "--first", "100"], "no window of iterations is left"),
    (["{run}", "{run}"], "two runs have one name"),
])  # fmt: skip
def test_what_cannot_be_drawn_is_refused(arguments, message, recorded, tmp_path):
    with pytest.raises(SystemExit, match=message):
        plot.main([word.format(run=recorded, empty=tmp_path) for word in arguments])


@pytest.mark.parametrize("heads, stages", [("StandardROIHeads", 1), ("CascadeROIHeads", 3)])
def test_inspecting_a_checkpoint_of_plain_heads(heads, stages, words, tmp_path):
    weights = str(tmp_path / "weights.pth")
    settings = [str(word) for word in [*TINY, "MODEL.ROI_HEADS.NAME", heads, "MODEL.DEVICE", "cpu"]]
    settings += ["MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", "True", "MODEL.ROI_HEADS.NUM_CLASSES", "2"]
    model = build_model(load_yaml(quick_config("faster_rcnn"), settings))
    torch.save({"model": model.state_dict()}, weights)
    data = ["--train-json", words[3], "--train-images", words[5]]
    arguments = ["--config-file", quick_config("faster_rcnn"), "--weights", weights, *data, "--images", "3"]
    paths = training_samples.main([*arguments, "--output", str(tmp_path / "out"), *settings])
    assert len(paths) == len(FIGURES) - 2, "all but the gradient norms, and what only an IoU branch has"
    ((_, _, counts),) = read_recording(str(tmp_path / "out")).windows
    assert sorted(counts) == [(k, 0) for k in range(stages)]
    assert all(fields["images"] == [3] for fields in counts.values())


def test_inspection_leaves_the_model_as_it_is(words):
    class Heads(torch.nn.Module):
        observers, main_branch = [], 0

    class Detector(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.roi_heads, self.seen = torch.nn.BatchNorm1d(2), Heads(), []

        def forward(self, batch):
            self.norm(torch.randn(5, 2))
            self.seen.append(len(batch))
            assert self.training and len(self.roi_heads.observers) == 1

    detector = Detector()
    assert training_samples.inspect_model(detector, iter([[0, 1]] * 9), num_images=3) == {}
    assert detector.seen == [2, 1] and detector.roi_heads.observers == []
    assert detector.norm.running_mean.tolist() == [0, 0]
    with pytest.raises(ValueError, match="num_images must be 1 or more, got 0"):
        training_samples.inspect_model(detector, [], num_images=0)


class OneHead(torch.nn.Module):
    """A model with a list of observers, and a trainer's place for the hook."""

    num_classes = 0

    def __init__(self):
        super().__init__()
        self.observers, self.weight = [], torch.nn.Parameter(torch.ones(1))


def test_counts_of_all_processes_are_added_up_and_taken_up_by_one(tmp_path, monkeypatch):
    monkeypatch.setattr(hook_module.comm, "get_world_size", lambda: 3)
    monkeypatch.setattr(hook_module, "reduce_sum", lambda values: 3 * values)
    settings = {"period": 4, "gradient_period": 0, "gradient_parameter": ""}

    def hook_at(start, state=None):
        model = OneHead()
        hook = hook_module.RecordImbalance(model, str(tmp_path), **settings)
        hook.load_state_dict(state or {})
        hook.trainer = SimpleNamespace(last_finished_iter=start - 1, iter=start, completed=True)
        hook.before_train()
        (recorder,) = model.observers
        return hook, recorder.counts.setdefault((0, 0), ImbalanceCounts("cpu"))

    hook, counts = hook_at(0)
    counts["images"].add_(5)
    hook.collect_state()
    assert hook.state_dict()["first"] == 0 and hook.state_dict()["counts"]["0/0"].sum() == 15
    _, of_main = hook_at(2, hook.state_dict())
    assert of_main["images"].item() == 15
    monkeypatch.setattr(hook_module.comm, "is_main_process", lambda: False)
    _, of_other = hook_at(2, hook.state_dict())
    assert of_other["images"].item() == 0, "else the resumed sum would have them several times"
    monkeypatch.undo()
    hook.trainer.iter = 3
    hook.after_step()
    assert counts.values.sum() == 0
    ((first, last, fields),) = read_recording(str(tmp_path)).windows
    assert (first, last, fields[0, 0]["images"]) == (0, 3, [5])
