"""A bug in a user's component shows its line and what was being done; what a component refuses names the config key."""

import os
import re
import subprocess
import sys

import pytest
from paths import ROOT
from tiny_runs import LAZY_TINY, TINY, data_arguments, make_dataset, quick_config, train_net

from d2_balanced.modeling.registry import PROPOSAL_SAMPLER_REGISTRY
from d2_balanced.utils.command import TRACEBACK

COMPONENT = """
import detectron2.layers
from d2_balanced.modeling.registry import PROPOSAL_SAMPLER_REGISTRY
from d2_balanced.modeling.sampling import RandomSampler


def helper(number):
    return number


@PROPOSAL_SAMPLER_REGISTRY.register()
class Faulty(RandomSampler):
    def __init__(self, fault: str = ""):
        super().__init__()
        self.fault = fault
        if fault == "refused":
            raise ValueError("Faulty: fault must not be 'refused'")
        if fault == "attribute":
            self.no_such_thing  # bug: attribute
        if fault == "unpacking":
            a, b = 1, 2, 3  # bug: unpacking
        if fault == "call":
            helper(size=3)  # bug: call
        if fault == "assertion":
            assert False  # bug: assertion
        if fault == "detectron2":
            detectron2.layers.get_norm("unpacking", 3)  # bug: detectron2

    def draw_negatives(self, negative, ious, num):
        if self.fault == "value":
            raise ValueError("not this one")  # bug: value
        if self.fault == "type":
            num + "1"  # bug: type
        return super().draw_negatives(negative, ious, num)
"""


@pytest.fixture(scope="module")
def component(tmp_path_factory):
    """The folder of ``my_faulty.py``."""
    folder = tmp_path_factory.mktemp("component")
    (folder / "my_faulty.py").write_text(COMPONENT)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    if sys.modules.pop("my_faulty", None):
        del PROPOSAL_SAMPLER_REGISTRY._obj_map["Faulty"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data"))


def words(kind, fault, data, folder):
    """The command line of a training of three iterations with the faulty sampler."""
    common = ["--config-file", quick_config("faster_rcnn", kind), *data_arguments(data), "--output-dir", folder]
    if kind == "yaml":
        sampler = ["IMPORTS", "['my_faulty']", "MODEL.BALANCED.SAMPLER.NAME", "Faulty",
                   "MODEL.BALANCED.SAMPLER.FAULT", fault]  # fmt: skip
        return [*common, *TINY, "SOLVER.MAX_ITER", 3, *sampler]
    sampler = "model.roi_heads.proposal_sampler"
    own = [f"{sampler}._target_=my_faulty.Faulty", f"{sampler}.fault={fault}"]
    return [*common, *LAZY_TINY, "train.max_iter=3", *own]


KEYS = {"yaml": "MODEL.BALANCED.SAMPLER", "py": "model.roi_heads.proposal_sampler"}


@pytest.mark.parametrize("kind", KEYS)
def test_what_a_component_refuses_names_its_key(kind, component, data, tmp_path, capsys, monkeypatch):
    assert train_net(*words(kind, "refused", data, tmp_path / "out")) == 2
    said = capsys.readouterr().err
    key = {"yaml": "MODEL.BALANCED.SAMPLER.FAULT", "py": "model.roi_heads.proposal_sampler.fault"}[kind]
    assert said == f"train_net.py: error: {key}: Faulty: fault must not be 'refused'\n"
    assert said.strip().endswith((tmp_path / "out" / "log.txt").read_text().strip().rpartition("error: ")[2])
    monkeypatch.setenv(TRACEBACK, "1")
    assert train_net(*words(kind, "refused", data, tmp_path / "out")) == 2
    assert re.search(r"Traceback.*my_faulty.py.*raise ValueError.*\ntrain_net.py: error: ", capsys.readouterr().err, re.S)


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("fault", ["attribute", "unpacking", "call", "assertion", "detectron2"])
def test_a_bug_in_a_constructor_shows_its_line(kind, fault, component, data, tmp_path, capsys):
    assert train_net(*words(kind, fault, data, tmp_path / "out")) == 1
    said = capsys.readouterr().err
    line = 1 + COMPONENT.splitlines().index(next(x for x in COMPONENT.splitlines() if x.endswith(f"# bug: {fault}")))
    assert f'{component / "my_faulty.py"}", line {line}, in __init__' in said
    last = said.splitlines()[-1]
    assert re.match(rf"train_net.py: error: stopped by the \w+ above, while building {KEYS[kind]}, while ", last)
    assert said in (tmp_path / "out" / "log.txt").read_text() and said.count("most recent call last") == 1


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("fault, error", [("value", "ValueError"), ("type", "TypeError")])
def test_a_bug_in_training_shows_its_line_and_the_iteration(kind, fault, error, component, data, tmp_path, capsys):
    assert train_net(*words(kind, fault, data, tmp_path / "out")) == 1
    said = capsys.readouterr().err
    assert f'{component / "my_faulty.py"}"' in said and f"# bug: {fault}" in said
    assert said.endswith(f"train_net.py: error: stopped by the {error} above, in iteration 0.\n")


def test_the_help_says_how_to_get_a_traceback(capsys):
    assert train_net("--help") == 0
    assert f"{TRACEBACK}=1" in capsys.readouterr().out


@pytest.mark.parametrize("fault, status", [("refused", 2), ("attribute", 1)])
def test_of_two_processes_the_first_says_it_in_full(fault, status, component, data, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "train_net.py"]
    run = subprocess.run(
        [*command, *map(str, words("yaml", fault, data, tmp_path / "out"))], cwd=ROOT, capture_output=True, text=True,
        timeout=300, env={**os.environ, "PYTHONPATH": str(component), "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert run.returncode == 1  # torchrun's own
    told = [line for line in run.stderr.splitlines() if line.startswith("train_net.py: error: ")]
    first, second = [line for line in told if "(process 1)" not in line], [line for line in told if "(process 1)" in line]
    assert len(first) == 1 and len(second) <= 1, run.stderr  # torchrun may end the second one before it can speak
    assert run.stderr.count("my_faulty.py\", line") == (status == 1)
    assert re.search(rf"exitcode +: {status} ", run.stderr)
    if second and status == 1:
        assert "my_faulty.py, line" in second[0] and "log.txt.rank1" in second[0]
