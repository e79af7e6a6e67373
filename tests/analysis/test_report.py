"""The imbalance report of runs, folders and checkpoints: the page, what is missing from it, unchanged training."""

import glob
import json
import os
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from d2_balanced.recording.counts import ImbalanceCounts
from d2_balanced.recording.file import FILE, Recording, append_line, counts_line, read_recording
from d2_balanced.analysis.report import report_of_folder
from d2_balanced.analysis.report.__main__ import main
from d2_balanced.analysis.report.sections import SECTIONS
from d2_balanced.analysis.sample_figures import draw_iou_by_time, draw_predicted_iou
from d2_balanced.config import load_lazy
from d2_balanced.engine.from_lazy import LazyExperiment
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.roi_heads import CascadeROIHeads, StandardROIHeads
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from PIL import Image
from paths import ROOT
from tiny_runs import LAZY_TINY, TINY, checkpoint, data_arguments, differences, make_dataset, quick_config, train_net

PLAIN = ["MODEL.ROI_HEADS.NAME", "StandardROIHeads", "SOLVER.MAX_ITER", 6, "SEED", 1]


class Page(HTMLParser):
    """What a page says and refers to."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.sources, self.links, self.headings, self.text = [], [], [], [], ""
        with open(path, encoding="utf-8") as file:
            self.feed(file.read())
        self.folder = os.path.dirname(path)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "srcset", "data", "action"):
                self.sources.append(value)
            if name == "href":
                self.links.append(value)

    def handle_data(self, data):
        within = self.tags[-1:]
        if within == ["h2"] and data.strip():
            self.headings.append(data)
        self.text += "" if within == ["style"] else data


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return data_arguments(*[make_dataset(tmp_path_factory.mktemp(name), seed=k) for k, name in enumerate(("a", "b"))])


@pytest.fixture(scope="module")
def reported(data, tmp_path_factory):
    """A run of detectron2's plain heads with a report."""
    folder = str(tmp_path_factory.mktemp("reported"))
    words = ["--config-file", quick_config("faster_rcnn"), *data, "--output-dir", folder, "--imbalance-report"]
    assert train_net(*words, *TINY, *PLAIN, "ANALYSIS.PERIOD", 2) == 0
    return folder


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory):
    """The same run without."""
    folder = str(tmp_path_factory.mktemp("plain"))
    assert train_net("--config-file", quick_config("faster_rcnn"), *data, "--output-dir", folder, *TINY, *PLAIN) == 0
    return folder


def test_the_page_of_a_run(reported):
    page = Page(os.path.join(reported, "imbalance", "report.html"))
    assert page.headings == [
        "What is out of balance", *(section.title for section in SECTIONS), "Training images", "The limits"
    ]
    assert "recorded in training, iterations 0 to 5; 12 images" in page.text
    assert "RandomSampler" in page.text and "FixedMatcher" in page.text and "{{" not in page.text
    drawn = [name for name in os.listdir(os.path.join(reported, "imbalance")) if name.endswith(".png")]
    assert len(page.sources) == len(drawn) >= 15
    for name in drawn:
        pixels = np.asarray(Image.open(os.path.join(reported, "imbalance", name)).convert("L"), dtype=float)
        assert min(pixels.shape) > 100 and pixels.std() > 5, f"{name} is empty"


def test_the_page_needs_no_other_file(reported):
    page = Page(os.path.join(reported, "imbalance", "report.html"))
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    for link in page.links:
        assert ":" not in link and os.path.isfile(os.path.join(page.folder, link)), link


def test_training_is_bit_identical_with_and_without(reported, plain):
    without, with_report = checkpoint(plain), checkpoint(reported)
    assert differences(without["model"], with_report["model"]) == []
    for part in ("optimizer", "recent_scalars"):
        assert differences(without["trainer"][part], with_report["trainer"][part]) == []


def test_a_finished_run_that_recorded_nothing(plain, tmp_path, capsys):
    path = main([plain, "--output", str(tmp_path), "--images", "3", "--pictures", "1"])
    assert capsys.readouterr().out.strip().endswith(path) and path.startswith(str(tmp_path))
    page = Page(path)
    assert "measured on the run's last checkpoint, without training; 3 images" in page.text
    assert "A checkpoint has no history" in page.text
    assert read_recording(os.path.dirname(path)).windows[0][2][0, 0]["images"] == [3]
    assert sum(name.startswith("rois_") for name in os.listdir(tmp_path / "imbalance")) == 1
    assert not os.path.exists(os.path.join(plain, FILE))


def test_a_checkpoint_on_a_data_set(plain, data, tmp_path):
    words = ["--config-file", quick_config("faster_rcnn"), "--weights", os.path.join(plain, "model_final.pth")]
    words += [*data[:4], "--images", "2", "--pictures", "0", "--output", str(tmp_path)]
    page = Page(main([*words, "--opts", *TINY, *(str(word) for word in PLAIN), "MODEL.DEVICE", "cpu"]))
    assert "measured on model_final.pth, without training; 2 images" in page.text
    assert "There is no evaluation." in page.text and "None were asked for." in page.text


def test_a_lazy_run_of_one_iteration_then_resumed(data, tmp_path):
    words = ["--config-file", quick_config("faster_rcnn", "py"), *data[:4], "--output-dir", str(tmp_path)]
    words.append("--imbalance-report")
    overrides = [*(setting for setting in LAZY_TINY if "dataloader.test" not in setting), "train.device=cpu"]
    assert train_net(*words, *overrides, "train.max_iter=1") == 0
    path = os.path.join(tmp_path, "imbalance", "report.html")
    page = Page(path)
    assert "iterations 0 to 0; 2 images" in page.text and "one window of iterations shows no change" in page.text
    assert train_net(*words, "--resume", *overrides, "train.max_iter=2") == 0
    assert "iterations 0 to 1; 4 images" in Page(path).text
    os.remove(tmp_path / FILE)
    assert report_of_folder(str(tmp_path), images=2, pictures=1) == path
    assert "measured on the run's last checkpoint, without training; 2 images" in Page(path).text


@pytest.mark.parametrize("counted", [False, True])
def test_a_recording_alone_says_what_is_missing(counted, tmp_path):
    """Of images without objects, and of no images at all; one class; no config, metrics, evaluation or checkpoint."""
    counts = ImbalanceCounts("cpu", num_classes=1)
    if counted:
        counts["images"].add_(3)
        counts["images_by_objects"][0] += 3
        counts["proposal_ious"][0] += 60
        counts["negatives"].add_(60)
        counts["negative_ious"][0] += 60
    append_line(str(tmp_path), counts_line(0, 9, {(0, 0): counts}))
    page = Page(report_of_folder(str(tmp_path)))
    assert f"iterations 0 to 9; {3 * counted} images" in page.text
    for reason in ("There is no evaluation", "has no IoU branch", "Nothing in this run adapts", "could not be used"):
        assert reason in page.text
    assert "nan" not in page.text.lower()


def test_what_cannot_be_reported_is_refused(tmp_path, capfd, data):
    with pytest.raises(SystemExit, match="There is no folder"):
        main([str(tmp_path / "nothing")])
    with pytest.raises(SystemExit, match="no checkpoint could be measured"):
        main([str(tmp_path)])
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--config-file", "x.yaml"])
    assert "either RUN_DIR or --config-file" in capfd.readouterr().err
    words = ["--config-file", quick_config("retinanet"), *data, "--output-dir", tmp_path / "run", "--imbalance-report"]
    assert train_net(*words, "MODEL.DEVICE", "cpu") == 2
    assert "no two-stage detector" in capfd.readouterr().err
    assert train_net(*words, "--eval-only") == 2
    assert "records training" in capfd.readouterr().err


def plain_lazy_heads(cascade):
    """The quick detector with detectron2's own ROI heads."""
    cfg = load_lazy(quick_config("faster_rcnn", "py"))
    heads = cfg.model.roi_heads
    for name in ("proposal_sampler", "stages", "branches", "iou_branch", "nms"):
        del heads[name]
    heads.box_predictor._target_ = FastRCNNOutputLayers
    for name in ("box_loss", "cls_loss"):
        del heads.box_predictor[name]
    heads._target_ = CascadeROIHeads if cascade else StandardROIHeads
    if cascade:
        heads.box_predictor.cls_agnostic_bbox_reg = True
        heads.box_predictor.num_classes = 3
        heads.box_heads, heads.box_predictors = [heads.pop("box_head")] * 3, [heads.pop("box_predictor")] * 3
        del heads["proposal_matcher"]
        matchers = [L(Matcher)(thresholds=[iou], labels=[0, 1]) for iou in (0.5, 0.6, 0.7)]
        heads.proposal_matchers = matchers
    return cfg


@pytest.mark.parametrize("cascade", [False, True])
def test_detectron2s_heads_in_a_lazy_config_become_recordable(cascade):
    cfg = plain_lazy_heads(cascade)
    before = instantiate(cfg.model.roi_heads)
    LazyExperiment(cfg).make_recordable()
    after = instantiate(cfg.model.roi_heads)
    assert type(after).__name__ == "BalancedROIHeads" and after.observers == []
    assert {k: v.shape for k, v in before.state_dict().items()} == {k: v.shape for k, v in after.state_dict().items()}
    assert [m.thresholds[1] for m in after.matchers] == ([0.5, 0.6, 0.7] if cascade else [0.5])
    LazyExperiment(cfg).make_recordable()
    assert type(instantiate(cfg.model.roi_heads)).__name__ == "BalancedROIHeads", "a second time changes nothing"


def test_figures_of_samples():
    """Quarters are told apart by colours in their order; predicted IoUs are drawn where there are any."""
    windows = []
    for k in range(8):
        counts = {(stage, 0): ImbalanceCounts("cpu", num_classes=1) for stage in (0, 1)}
        counts[0, 0]["images"].add_(2)
        counts[0, 0]["proposal_ious"][k] += 6
        counts[1, 0]["proposal_ious"][19] += 9
        windows.append((k, k, {key: _fields(each) for key, each in counts.items()}))
    recording = Recording(windows, [])
    figure = draw_iou_by_time({"run": recording})
    curves = figure.axes[0].patches
    assert [curve.get_label() for curve in curves] == [f"iterations {k} to {k + 1}" for k in (0, 2, 4, 6)]
    assert [list(np.flatnonzero(curve.get_data().values)) for curve in curves] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert curves[0].get_data().values[0] == 6 / 4, "of the first stage, an image"
    colours = [sum(curve.get_edgecolor()[:3]) for curve in curves]
    assert colours == sorted(colours), "late is bright"
    assert draw_predicted_iou({"run": recording}) is None
    fields = windows[0][2][0, 0]
    fields["predicted_ious"][12], fields["predicted_iou_sum"][12], fields["predicted_iou_true_sum"][12] = 4, 2.5, 2.0
    line, equal = draw_predicted_iou({"run": recording}).axes[0].lines
    assert (line.get_xdata(), line.get_ydata()) == (0.625, 0.5) and list(equal.get_xdata()) == [0, 1]


def _fields(counts):
    return {name: np.array(values, dtype=float) for name, values in counts.as_lists().items()}


def test_the_template_is_installed(tmp_path):
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    folder = tmp_path / "d2_balanced" / "analysis" / "report"
    assert (folder / "template.html").is_file() and (folder / "write.py").is_file()
    found = glob.glob(os.path.join(ROOT, "d2_balanced", "**", "*.html"), recursive=True)
    pages = {os.path.relpath(path, ROOT) for path in found}
    assert len(pages) >= 5 and not [page for page in pages if not (tmp_path / page).is_file()]


def test_a_run_keeps_its_own_records_beside_those_of_a_report(plain, tmp_path):
    """Measuring again replaces the old measurement instead of adding to it."""
    for _ in range(2):
        path = main([plain, "--output", str(tmp_path), "--images", "2", "--pictures", "0"])
    with open(os.path.join(os.path.dirname(path), FILE)) as file:
        assert [json.loads(line)["counts"][0]["images"] for line in file] == [[2]]
