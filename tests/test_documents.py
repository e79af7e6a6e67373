"""Every command of README.md and docs/ that can run here does, cut to a few iterations; of the others the config loads."""

import glob
import importlib
import os
import re
import shlex

import pytest
from paths import ROOT
from tiny_runs import TINY, make_dataset, train_net

from d2_balanced import __main__ as d2_balanced
from d2_balanced.engine.run import load_experiment
from d2_balanced.train import argument_parser

DOCUMENTS = ["README.md", *sorted(glob.glob("docs/*.md", root_dir=ROOT))]
CUT = [str(word) for word in [*TINY, "SOLVER.MAX_ITER", 3]]


def commands(document):
    """The command lines of the indented and fenced blocks, without comments, continued lines joined."""
    with open(os.path.join(ROOT, document), encoding="utf-8") as file:
        text = file.read()
    blocks = re.findall(r"^(?: {4}.*\n)+|^```\w*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"(?:^ {4}.*\n)+", text, flags=re.MULTILINE) + [b for b in blocks if b]
    for block in blocks:
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            line = re.sub(r"\s#.*", "", line).strip()
            if re.match(r"(\.\.\. |python (train_net|-m d2_balanced)|torchrun |d2_balanced )", line):
                yield line


def words_of(line):
    return [word.strip("[]") for word in shlex.split(line)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder like the checkout, with the data that the README calls ``my/``."""
    folder = tmp_path_factory.mktemp("documents")
    for name in ("configs", "projects"):
        os.symlink(os.path.join(ROOT, name), folder / name)
    for split, images in (("train", 10), ("val", 4)):
        path, _ = make_dataset(folder / "my" / split, images=images, seed=len(split))
        os.replace(path, folder / "my" / f"{split}.json")
    return folder


def runnable(line):
    return not re.search(r"--num-gpus|torchrun|CONFIG|\$|\.\.\. |\.\.\.$| \.\.\.", line)


def test_a_training_from_its_start_to_its_report(place, monkeypatch):
    monkeypatch.chdir(place)
    lines = list(commands("docs/TRAINING.md"))
    first = next(line for line in lines if "--train-json" in line)
    assert first in commands("README.md")
    base = words_of(first)[2:]
    assert train_net(*base, *CUT) == 0
    variants = [line for line in lines if line.startswith("... ") and "detectron2://" not in line and "other/" not in line]
    assert len(variants) >= 5
    for number, line in enumerate(variants):
        words = [word if word != "20" else "1" for word in words_of(line)[1:]]  # epochs
        options = [k for k, word in enumerate(words) if word.isupper() or "." in word and word[0].isupper()]
        cut = options[0] if options else len(words)
        fresh = ["--output-dir", f"output/variant{number}"]
        assert train_net(*base, *words[:cut], *fresh, *CUT, *words[cut:]) == 0, line
    resumed = next(line for line in lines if "--resume" in line)
    assert train_net(*words_of(resumed)[2:], "SOLVER.MAX_ITER", "4") == 0
    assert os.path.isfile(glob.glob("output/variant*/imbalance/report.html")[0])


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_configs_load(document, monkeypatch):
    """Also of the commands that need a GPU or COCO."""
    monkeypatch.chdir(ROOT)
    lines = [line for line in commands(document) if re.search(r"train_net\.py .*--config-file (configs|projects)/", line)]
    for line in lines:
        words = words_of(line[line.index("train_net.py"):])[1:]
        load_experiment(argument_parser().parse_args(words))
    assert lines or document != "docs/TRAINING.md"


MODULES = sorted({m for d in DOCUMENTS for line in commands(d) for m in re.findall(r"python -m (d2_balanced[\w.]*)", line)})


@pytest.mark.parametrize("module", MODULES)
def test_named_modules_are_commands(module):
    found = importlib.import_module(module)
    if hasattr(found, "__path__"):
        found = importlib.import_module(f"{module}.__main__")
    assert callable(found.main)


def test_commands_of_data_and_reports_run_as_printed(place, monkeypatch):
    monkeypatch.chdir(place)
    _train_mine()
    ran = 0
    for document in ("docs/DATA.md", "docs/GUIDE.md"):
        for line in filter(runnable, commands(document)):
            found = re.match(r"python -m (d2_balanced\.(?:data\.check|analysis\.report))\b(.*)", line)
            if found:
                module = importlib.import_module(found.group(1))
                module = importlib.import_module(f"{found.group(1)}.__main__") if hasattr(module, "__path__") else module
                status = module.main(shlex.split(found.group(2).replace("bitmask", "polygon").replace("--strict", "")))
                assert not status or isinstance(status, str), line
                ran += 1
    assert ran >= 3


def _train_mine():
    if not os.path.exists("output/mine"):
        base = words_of(next(line for line in commands("README.md") if "--train-json" in line))[2:]
        assert train_net(*base, *CUT) == 0


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_commands_are_there(document):
    for line in commands(document):
        if line.startswith("d2_balanced "):
            assert line.split()[1] in d2_balanced.COMMANDS, line


PAGES = {"docs/EVALUATION.md": "eval", "docs/COMPARING.md": "compare", "docs/PREDICT.md": "predict",
         "docs/ERRORS.md": "errors"}  # fmt: skip


@pytest.mark.parametrize("document", PAGES)
def test_a_page_begins_with_a_command_that_works(place, monkeypatch, document):
    monkeypatch.chdir(place)
    _train_mine()
    for name in ("base", "new"):
        if not os.path.exists(f"output/{name}"):
            os.symlink("mine", f"output/{name}")
    line = next(commands(document))
    assert line.startswith(f"d2_balanced {PAGES[document]} ")
    assert d2_balanced.main(words_of(line)[1:]) == 0
