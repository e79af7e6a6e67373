"""The code of docs/OWN_COMPONENTS.md, as it stands: the files are written as shown, and the commands' configs trained."""

import ast
import math
import os
import re
import shlex
import sys
from types import SimpleNamespace

import pytest
import torch
import twins
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from paths import ROOT

from d2_balanced.config import ConfigError, load_yaml
from d2_balanced.train import argument_parser
from d2_balanced.engine.run import load_experiment
from d2_balanced.modeling.suppression import Predicted

with open(os.path.join(ROOT, "docs", "OWN_COMPONENTS.md"), encoding="utf-8") as page:
    BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", page.read(), flags=re.MULTILINE | re.DOTALL)
FILES = {re.match(r"# (\S+)\n", code).group(1): code for language, code in BLOCKS if language != "bash"}
COMMANDS = [code.replace("\\\n", "") for language, code in BLOCKS if language == "bash"]
REGISTRIES = (
    "PROPOSAL_SAMPLER_REGISTRY",
    "CLS_LOSS_REGISTRY",
    "BOX_LOSS_REGISTRY",
    "SAMPLE_WEIGHTS_REGISTRY",
    "PROPOSAL_MATCHER_REGISTRY",
    "NMS_REGISTRY",
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the page's files beside the configs, in which the commands are started."""
    for name, code in FILES.items():
        (tmp_path / name).write_text(code)
    (tmp_path / "configs").symlink_to(os.path.join(ROOT, "configs"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    import d2_balanced.modeling.registry as registries

    sys.modules.pop("my_components", None)
    for registry in (getattr(registries, name) for name in REGISTRIES):
        for name in [n for n, target in registry if target.__module__ == "my_components"]:
            del registry._obj_map[name]


def train_a_step(command):
    """The losses of one training step of what the command would train."""
    words = shlex.split(command)
    args = argument_parser().parse_args(words[words.index("train_net.py") + 1 :])
    experiment = load_experiment(args)
    experiment.set_run(device="cpu")
    torch.manual_seed(0)
    model = experiment.build_model()
    model.train()
    with EventStorage():
        return model, model(twins.inputs(load_yaml("configs/quick/faster_rcnn_R_18_FPN.yaml")))


def test_the_page_has_what_it_announces():
    assert list(FILES) == ["my_components.py", "my_config.yaml", "my_config.py"]
    assert len(COMMANDS) == 3 and all(command.startswith("PYTHONPATH=. python train_net.py") for command in COMMANDS)
    classes = [node for node in ast.parse(FILES["my_components.py"]).body if isinstance(node, ast.ClassDef)]
    lengths = {node.name: node.end_lineno - node.decorator_list[0].lineno + 1 for node in classes}
    assert len(lengths) == 6 and max(lengths.values()) < 15, lengths


@pytest.mark.parametrize("command", COMMANDS, ids=["yaml", "command line", "lazy"])
def test_commands_train(folder, command):
    model, losses = train_a_step(command)
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    heads = model.roi_heads
    assert type(heads.branches[0].sampler).__name__ == "HardNegatives" and heads.branches[0].sampler.hard_share == 0.25
    if "cascade" not in command:
        assert type(heads.nms).__name__ == "MatrixNMS" and heads.nms.sigma == 0.4
        assert type(heads.box_predictor.box_loss).__name__ == "Huber" and heads.box_predictor.box_loss.delta == 0.5
        assert type(heads.box_predictor.cls_loss).__name__ == "Poly1" and heads.box_predictor.cls_loss.epsilon == 2
        assert type(heads.proposal_matcher).__name__ == "TopMatcher" and heads.proposal_matcher.k == 5
        assert type(heads.sample_weights).__name__ == "SmallObjects" and heads.sample_weights.factor == 3


def test_yaml_and_lazy_are_the_same(folder):
    losses = [train_a_step(COMMANDS[i])[1] for i in (0, 2)]
    assert {k: v.item() for k, v in losses[0].items()} == {k: v.item() for k, v in losses[1].items()}


def test_components_do_what_they_say(folder):
    load_yaml("my_config.yaml")
    import my_components

    labels, ious = torch.tensor([3, 3, 3, 3, 3, 0, -1]), torch.tensor([0.4, 0.1, 0.3, 0.0, 0.2, 0.9, 0.45])
    sampler = my_components.HardNegatives(hard_share=0.5)
    for num in range(1, 8):
        positives, negatives = sampler(labels, ious, torch.zeros(7, dtype=torch.int64), num, 0.25, 3)
        wanted = min(num - len(positives), 5)
        assert len(set(negatives.tolist())) == wanted and set(negatives.tolist()) <= {0, 1, 2, 3, 4}
        assert set([0, 2, 4, 1, 3][: wanted // 2]) <= set(negatives.tolist())
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25]]))
    loss = my_components.Poly1(epsilon=2.0)(logits, torch.tensor([1]))
    assert loss.tolist() == pytest.approx([math.log(4) + 2 * 0.75])
    boxes = Boxes(torch.tensor([[0.0, 0.0, 20.0, 90.0], [0.0, 0.0, 20.0, 20.0], [0.0, 0.0, 50.0, 90.0]]))
    view = SimpleNamespace(samples=[[Instances((99, 99), proposal_boxes=boxes)]])
    losses = SimpleNamespace(positive=torch.tensor([True, False, True]))
    weights = my_components.SmallObjects().weigh(view, losses)
    assert weights.cls.tolist() == weights.box.tolist() == [2.0, 1.0, 1.0]
    boxes = torch.tensor([[0.0, 0.0, 10.0, 8.0], [0.0, 2.0, 10.0, 10.0], [0.0, 20.0, 10.0, 30.0]])  # the IoU is 0.6
    scores = torch.tensor([[0.8, 0.2], [0.9, 0.1], [0.7, 0.3]])
    detect = my_components.MatrixNMS(sigma=0.5)
    found, nothing = detect([boxes, boxes[:0]], [scores, scores[:0]], [(99, 99)] * 2, Predicted(0.05, 0.5, 2))
    assert found.scores.tolist() == pytest.approx([0.9, 0.7]) and len(nothing) == 0
    (every,) = detect([boxes], [scores], [(99, 99)], Predicted(0.05, 0.5, 100))
    assert every.scores.tolist() == pytest.approx([0.9, 0.7, 0.8 * math.exp(-0.72)])
    matcher = my_components.TopMatcher([0.5], [0, 1], k=2)
    overlaps = torch.tensor([[0.6, 0.1, 0.3, 0.0], [0.0, 0.0, 0.0, 0.2]])
    assert matcher(overlaps)[1].tolist() == [1, 0, 1, 1]
    assert matcher(overlaps[:0])[1].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "name, code, message",
    [
        ("my_componets", "", "there is no module 'my_componets' on Python's path.*PYTHONPATH"),
        ("broken", "import no_such_package", "broken.py, line 1: there is no module 'no_such_package'"),
        ("broken", "\nfrom json import dumb", "broken.py, line 2: cannot import name 'dumb' from 'json'"),
        ("broken", "def f(:", "broken.py, line 1: invalid syntax"),
        ("../broken.py", "", "expected names of modules"),
    ],
)
def test_modules_that_cannot_be_imported_are_refused(folder, monkeypatch, name, code, message):
    (folder / "broken.py").write_text(code)
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    with pytest.raises(ConfigError, match=f"(?s)IMPORTS: .*{message}"):
        load_yaml("configs/quick/faster_rcnn_R_18_FPN.yaml", ["IMPORTS", f"['{name}']"])


def test_a_bug_in_an_imported_module_stays_what_it_is(folder, monkeypatch):
    (folder / "broken.py").write_text("1 / 0")
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    with pytest.raises(ZeroDivisionError) as error:
        load_yaml("configs/quick/faster_rcnn_R_18_FPN.yaml", ["IMPORTS", "['broken']"])
    assert str(error.traceback[-1].path).endswith("broken.py") and "IMPORTS" in error.value.doing[0]
