"""An exported file finds what the detector finds, or gets no name; what cannot be exported is refused."""

import json
import os

import numpy as np
import pytest
import torch
from commands import refusal, status
from d2_balanced.engine.experiment import OwnData
from d2_balanced.engine.open import open_experiment
from d2_balanced.inference import Predictor
from d2_balanced.inference.export import write
from d2_balanced.inference.export.command import DIFFERS, main
from d2_balanced.inference.export.differences import Bounds, differences, worst
from d2_balanced.inference.export.exported import ExportedDetector
from d2_balanced.inference.export.formats import BY_TRACING, OPSET
from d2_balanced.inference.export.nms import onnx_nms, torchscript_nms
from d2_balanced.inference.export.supported import check_exportable
from d2_balanced.inference.images_of_run import images_of_run
from d2_balanced.utils import extras
from d2_balanced.utils.errors import CheckpointError, ConfigError, DataError, InstallError
from detectron2.layers import batched_nms
from random_runs import make_images, make_run
from tiny_runs import TINY, make_dataset, quick_config

FAMILIES = {
    "faster": "quick/faster_rcnn_R_18_FPN",
    "cascade": "quick/cascade_rcnn_R_18_FPN",
    "PRM": "RGA_PRM/prm_quick",
    "R3, loops": "R3CNN/r3_mask_quick",
    "IoU branch with EFO": "IoUUniformRCNN/iou_uniform_quick_efo",
    "SABL": "Peers/quick/sabl",
    "RetinaNet": "quick/retinanet_R_18_FPN",
}
BOUNDS = Bounds(box=0.1, score=0.001, mask=0.01)


def needs_onnx():
    pytest.importorskip("onnx", reason="the extra [export] is not installed")
    pytest.importorskip("onnxruntime", reason="the extra [export] is not installed")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with images of several sizes, and a run of a Mask R-CNN."""
    folder = tmp_path_factory.mktemp("export")
    make_images(folder / "images")
    make_run(folder / "mask", quick_config("mask_rcnn"))
    return folder


def export(place, run, file_format, *words):
    return status(main, "--run", place / run, "--format", file_format, "--images", place / "images", *words)


@pytest.mark.parametrize("file_format, ending", [("torchscript", ".ts"), ("onnx", ".onnx")])
def test_the_file_is_written_tried_and_says_what_it_is(place, capsys, file_format, ending):
    if file_format == "onnx":
        needs_onnx()
    assert export(place, "mask", file_format) == 0
    told = capsys.readouterr().out
    path = str(place / "mask" / f"model_final{ending}")
    assert told.rstrip().endswith(path) and "| 3.png" in told and "turned and pale" in told
    exported = ExportedDetector(path)
    about = exported.about
    assert about["class_names"] == ["class 0", "class 1", "class 2"] and about["channels"] == "BGR"
    assert (about["shortest_side"], about["longest_side"], about["score_threshold"]) == (48, 96, 0.05)
    assert json.dumps(about, allow_nan=False)
    assert about["outputs"] == ["boxes", "classes", "masks", "scores"] and len(about["pixel_mean"]) == 3
    predictor = Predictor.from_run(place / "mask")
    other = Predictor(exported, predictor.reader.mapper, predictor.class_names)
    for name in ("0.png", "2.png"):  # in pixels of the image file, with masks pasted
        one, two = predictor(place / "images" / name), other(place / "images" / name)
        assert len(one) == len(two) > 5 and one.image_size == two.image_size
        assert torch.equal(one.pred_classes, two.pred_classes) and one.pred_masks.shape == two.pred_masks.shape
        torch.testing.assert_close(one.pred_boxes.tensor, two.pred_boxes.tensor, atol=1e-3, rtol=0)
        torch.testing.assert_close(one.scores, two.scores, atol=1e-5, rtol=0)
    assert not [name for name in os.listdir(place / "mask") if name.endswith(".differs")]


@pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES)
def test_torchscript_files_of_all_families_find_the_same_to_the_bit(place, tmp_path, config):
    images = [str(place / "images" / name) for name in ("0.png", "3.png")]
    report = write.export_run(make_run(tmp_path, config), "torchscript", images=images)
    total = worst([each for _, _, each in report.rows])
    assert report.agrees and total[1:] == (0, 0.0, 0.0, 0.0)
    assert all(each.pairs > 5 for _, _, each in report.rows[:2])


def test_a_file_that_differs_does_not_get_its_name(place, tmp_path, monkeypatch, capsys):
    outputs = ExportedDetector.outputs

    def shifted(self, image):
        found = outputs(self, image)
        return {**found, "boxes": found["boxes"] + 0.2}

    monkeypatch.setattr(ExportedDetector, "outputs", shifted)
    path = tmp_path / "shifted.ts"
    assert export(place, "mask", "torchscript", "--output", path) == DIFFERS
    assert os.listdir(tmp_path) == ["shifted.ts.differs"] and "not to be used" in capsys.readouterr().err
    assert export(place, "mask", "torchscript", "--output", path, "--box-bound", "0.3") == 0
    assert os.listdir(tmp_path) == ["shifted.ts"]


@pytest.mark.parametrize("words, told", [
    (["--format", "torchscript", "--output", "{tmp}/a.onnx"], "has to end in .ts"),
    (["--format", "torchscript", "--output", "{tmp}/there.ts"], "add --overwrite"),
    (["--format", "torchscript", "--output", "{tmp}/there.ts/a.ts"], "Cannot write"),
    (["--format", "torchscript", "--images", "{tmp}/nothing"], "--images"),
    (["--format", "onnx", "--device", "cuda"], "not of a device"),
])  # fmt: skip
def test_misuse_is_refused(place, tmp_path, words, told):
    if "onnx" in words:
        needs_onnx()
    (tmp_path / "there.ts").touch()
    assert told in refusal(main, "--run", place / "mask", *(word.format(tmp=tmp_path) for word in words))


def test_the_runs_own_images_are_those_it_is_evaluated_on(tmp_path):
    annotations, images = make_dataset(tmp_path / "val", images=6)
    experiment = open_experiment(quick_config("faster_rcnn"), TINY, OwnData(annotations, images, annotations, images))
    experiment.save_config(str(tmp_path / "config.yaml"))
    own = images_of_run(str(tmp_path), 3)
    assert [os.path.relpath(path, images) for path in own] == ["0.png", "2.png", "4.png"]
    assert len(images_of_run(str(tmp_path), 100)) == 6
    os.remove(annotations)
    with pytest.raises(DataError):
        images_of_run(str(tmp_path), 3)


def test_the_extra_is_named_where_onnx_is_missing(place, monkeypatch):
    monkeypatch.setattr(extras.importlib, "import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    with pytest.raises(InstallError, match=r"pip install 'd2_balanced\[export\]'"):
        write.export_run(str(place / "mask"), "onnx")


@pytest.mark.parametrize("config, overrides, file_format, told", [
    ("quick/faster_rcnn_R_18_FPN", ["MODEL.RESNETS.DEFORM_ON_PER_STAGE", "[False,False,False,True]"], "onnx",
     "deformable"),
    ("quick/faster_rcnn_R_18_FPN", ["MODEL.KEYPOINT_ON", "True"], "torchscript", "keypoints"),
    ("quick/faster_rcnn_R_18_FPN", ["MODEL.LAYERS.PRECISION", "bfloat16"], "torchscript", "bfloat16"),
    ("quick/faster_rcnn_R_18_FPN", ["MODEL.BALANCED.NMS.NAME", "SoftNMS"], "torchscript", "SoftNMS"),
    ("quick/retinanet_R_18_FPN", ["MODEL.BALANCED.RETINANET.NMS.NAME", "BoxVoting"], "torchscript", "BoxVoting"),
    ("RGA_PRM/prm_quick", ["MODEL.BALANCED.NMS", "{'NAME': 'NMS', 'JOINT': True}"], "torchscript", "joint NMS"),
    ("quick/rpn_R_18_FPN", [], "torchscript", "only proposes boxes"),
    ("quick/faster_rcnn_R_18_FPN", ["INPUT.FORMAT", "L", "MODEL.PIXEL_MEAN", "[1.0]", "MODEL.PIXEL_STD", "[1.0]"],
     "torchscript", "a file takes BGR or RGB"),
])  # fmt: skip
def test_what_cannot_be_exported_is_refused_with_the_reason(place, tmp_path, config, overrides, file_format, told):
    run = make_run(tmp_path, config, *overrides)
    if file_format == "onnx":
        needs_onnx()
    with pytest.raises(ConfigError, match=told):
        write.export_run(run, file_format, images=[str(place / "images" / "0.png")])


def test_detectors_that_are_not_known_are_refused(place):
    model = Predictor.from_run(place / "mask").model
    model.roi_heads.__class__ = type("OwnHeads", (type(model.roi_heads),), {})
    with pytest.raises(ConfigError, match="OwnHeads"):
        check_exportable(model, "torchscript")
    with pytest.raises(ConfigError, match="Linear"):
        check_exportable(torch.nn.Linear(1, 1), "onnx")


@pytest.mark.parametrize("name", ["a.onnx", "a.ts"])
def test_other_files_are_refused(tmp_path, name):
    if name.endswith(".onnx"):
        needs_onnx()
    path = tmp_path / name
    with pytest.raises(CheckpointError, match="no exported file"):
        ExportedDetector(str(path))
    path.write_bytes(b"something else")
    with pytest.raises(CheckpointError, match="is no "):
        ExportedDetector(str(path))
    if name.endswith(".ts"):
        torch.jit.save(torch.jit.script(torch.nn.ReLU()), str(path))
        with pytest.raises(CheckpointError, match="does not say what it is"):
            ExportedDetector(str(path))


def random_boxes(num, classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corner, size = 1300 * torch.rand(num, 2, generator=generator), 300 * torch.rand(num, 2, generator=generator)
    return (torch.cat([corner, corner + size], dim=1), torch.rand(num, generator=generator),
            torch.randint(0, classes, (num,), generator=generator))  # fmt: skip


NUMBERS = (700, 0, 1, 1000, 1001, 2500)  # torchvision counts boxes, and does another thing from 1001 on


class Suppression(torch.nn.Module):
    def __init__(self, nms):
        super().__init__()
        self.nms = nms

    def forward(self, boxes, scores, classes):
        return self.nms(boxes, scores, classes, 0.5, 80)


def test_traced_nms_is_torchvisions_for_any_number_of_boxes():
    traced = torch.jit.trace(Suppression(torchscript_nms), random_boxes(NUMBERS[0], 80), check_trace=False)
    for num in NUMBERS:
        boxes, scores, classes = random_boxes(num, 80)
        assert torch.equal(traced(boxes, scores, classes), batched_nms(boxes, scores, classes, 0.5)), num


def test_onnx_nms_is_torchvisions_for_any_number_of_boxes(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra [export] is not installed")
    pytest.importorskip("onnx", reason="the extra [export] is not installed")
    names, path = ["boxes", "scores", "classes"], str(tmp_path / "nms.onnx")
    given = random_boxes(NUMBERS[0], 80)
    torch.onnx.export(Suppression(onnx_nms), given, path, opset_version=OPSET, input_names=names, output_names=["kept"],
                      dynamic_axes={name: {0: "num"} for name in [*names, "kept"]}, **BY_TRACING)  # fmt: skip
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for num in NUMBERS:
        given = random_boxes(num, 80)
        (kept,) = session.run(None, {name: value.numpy() for name, value in zip(names, given)})
        assert kept.tolist() == batched_nms(*given, 0.5).tolist() == onnx_nms(*given, 0.5, 80).tolist(), num


def outputs(boxes, scores, classes, masks=None):
    tensors = torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores), torch.tensor(classes).long()
    found = dict(zip(("boxes", "scores", "classes"), tensors))
    return found if masks is None else {**found, "masks": torch.tensor(masks)}


BOXES = [[0.0, 0, 10, 10], [5.0, 5, 30, 30], [6.0, 5, 30, 30]]
REFERENCE = outputs(BOXES, [0.9, 0.8, 0.7], [0, 1, 1])


@pytest.mark.parametrize("found, expected", [
    (REFERENCE, (3, 0, 0.0, 0.0, 0.0)),
    (outputs([BOXES[2], BOXES[0], BOXES[1]], [0.7, 0.9, 0.8], [1, 0, 1]), (3, 0, 0.0, 0.0, 0.0)),  # another order
    (outputs([[0.5, 0, 10, 10], *BOXES[1:]], [0.9, 0.8, 0.75], [0, 1, 1]), (3, 0, 0.5, 0.05, 0.0)),
    (outputs(BOXES, [0.9, 0.8, 0.7], [0, 1, 0]), (2, 2, 0.0, 0.0, 0.0)),  # another class
    (outputs(BOXES[:2], [0.9, 0.8], [0, 1]), (2, 1, 0.0, 0.0, 0.0)),
    (outputs([], [], []), (0, 3, 0.0, 0.0, 0.0)),
])  # fmt: skip
def test_differences_of_pairs_and_of_what_only_one_has(found, expected):
    told = differences(REFERENCE, found, BOUNDS, threshold=0.05, limit=100)
    assert told == pytest.approx(expected, abs=1e-6)
    assert told.within(BOUNDS) == (expected[1:] == (0, 0.0, 0.0, 0.0))


def test_what_the_threshold_or_the_limit_cut_off_by_a_rounding_is_no_difference():
    fewer = outputs(BOXES[:2], [0.9, 0.8], [0, 1])
    assert differences(REFERENCE, fewer, BOUNDS, threshold=0.6995, limit=100).alone == 0
    assert differences(REFERENCE, fewer, BOUNDS, threshold=0.69, limit=100).alone == 1
    assert differences(REFERENCE, fewer, BOUNDS, threshold=0.05, limit=3).alone == 0  # its third, the last one of three


def test_masks_are_compared_pair_by_pair():
    one = outputs(BOXES[:2], [0.9, 0.8], [0, 1], np.float32([[[0.2]], [[0.6]]]))
    two = outputs(BOXES[1::-1], [0.8, 0.9], [1, 0], np.float32([[[0.6]], [[0.25]]]))
    assert differences(one, two, BOUNDS, 0.05, 100).mask == pytest.approx(0.05)
