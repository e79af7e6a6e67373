"""``make test-export``: the script of docs/EXPORT.md runs ONNX files in an environment without torch and detectron2."""

import os
import re
import subprocess

import pytest
import torch
from d2_balanced.inference import Predictor
from d2_balanced.inference.export.differences import Bounds, differences, worst
from d2_balanced.inference.export.write import export_run
from paths import ROOT
from random_runs import make_images, make_run

PYTHON = os.environ.get("EXPORT_PYTHON", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="needs an environment without torch: make test-export")
CONFIGS = (
    "quick/faster_rcnn_R_18_FPN",
    "quick/mask_rcnn_R_18_FPN",
    "quick/cascade_mask_rcnn_R_18_FPN",
    "RGA_PRM/prm_quick",
    "R3CNN/r3_mask_quick",
    "IoUUniformRCNN/iou_uniform_quick_efo",
    "quick/retinanet_R_18_FPN",
)
SIZES = ((200, 160), (160, 200), (256, 128), (131, 97), (40, 48))
PRINTED = Bounds(box=0.02, score=0.0002, mask=1)  # to two and four decimals


def script():
    with open(os.path.join(ROOT, "docs", "EXPORT.md"), encoding="utf-8") as file:
        (text,) = re.findall(r"```python\n(.*?)```", file.read(), re.DOTALL)
    assert len([line for line in text.splitlines() if line]) <= 15
    return text


def run(*words):
    done = subprocess.run([PYTHON, "-I", *words], capture_output=True, text=True, timeout=300)
    assert not done.returncode, done.stderr
    return done.stdout


def printed(lines):
    """Outputs, as of a file, from what the script prints."""
    rows = [line.split(maxsplit=5) for line in lines.splitlines()]
    numbers = torch.tensor([[float(word) for word in row[:5]] for row in rows]).reshape(-1, 5)
    classes = torch.tensor([int(row[5].split()[1]) for row in rows]).long()  # "class 2"
    return {"boxes": numbers[:, 1:], "scores": numbers[:, 0], "classes": classes}


def test_there_is_neither_torch_nor_detectron2():
    find = "import importlib.util as u, sys; print([name for name in sys.argv[1:] if u.find_spec(name)])"
    assert run("-c", find, "torch", "torchvision", "detectron2", "numpy") == "['numpy']\n"


@pytest.mark.parametrize("config", CONFIGS)
def test_the_file_finds_the_same_there(tmp_path, config):
    pytest.importorskip("onnx")
    images = make_images(tmp_path / "images", SIZES)
    report = export_run(make_run(tmp_path / "run", config, tiny=False), "onnx", images=images)
    total = worst([each for _, _, each in report.rows])
    print(f"{config} | {total.box:.1e} | {total.score:.1e} | {total.mask:.1e}")
    assert report.agrees, total
    (tmp_path / "detect.py").write_text(script())
    predictor = Predictor.from_run(tmp_path / "run")
    for path in images:
        found = predictor(path)
        reference = {"boxes": found.pred_boxes.tensor, "scores": found.scores, "classes": found.pred_classes}
        other = printed(run(str(tmp_path / "detect.py"), report.path, path))
        told = differences(reference, other, PRINTED, threshold=0.05, limit=100)
        assert told.within(PRINTED) and told.pairs > 20, (path, told)
