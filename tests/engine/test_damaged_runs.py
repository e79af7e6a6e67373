"""Run folders whose files are damaged in every way: each command works, or says what is wrong; nothing that is sound is lost.

40 inputs: one or two files of a finished run cut, emptied, with a bit flipped, replaced by a folder, by a list, by other
bytes or by a link to nothing, or deleted. Then one of six commands. The environment variable EXAMPLES asks for more.
"""

import json
import os
import shutil
from collections import Counter

import pytest
from d2_balanced.analysis.mistakes import main as errors
from d2_balanced.analysis.report.__main__ import main as report
from d2_balanced.engine import build
from d2_balanced.evaluation.compare import main as compare
from d2_balanced.inference.command import main as predict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from tiny_runs import TINY, data_arguments, make_dataset, quick_config, train_net

EXAMPLES = int(os.environ.get("EXAMPLES", 40))
BOUNDED = {"derandomize": True, "deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
EVALUATION = "inference/own_val/metrics.json"
FILES = [
    "last_checkpoint", "config.yaml", "config.2.yaml", "best.json", "metrics.json", "imbalance.jsonl", "log.txt", "run.lock",
    "results.csv", "results.png", "model_final.pth", "model_0000003.pth", "model_best.pth", EVALUATION,
    "inference/own_val/coco_instances_results.json", "inference/own_val", "inference", "imbalance",
]  # fmt: skip
LISTS = {"yaml": "- 1\n- [2]\n", "pth": "[1, 2]", "jsonl": "[1]\n[2]\n"}
OUTCOMES = Counter()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of 4 iterations, and 2 more with a changed config; its folder, its data, and one of its images."""
    folder = tmp_path_factory.mktemp("damaged")
    data = make_dataset(folder / "train"), make_dataset(folder / "val", images=2, seed=1)
    words = ["--config-file", quick_config("faster_rcnn"), *data_arguments(*data), "--output-dir", folder / "run", *TINY]
    recording = ["ANALYSIS.RECORD", True, "ANALYSIS.PERIOD", 2, "TEST.EVAL_PERIOD", 2, "SOLVER.CHECKPOINT_PERIOD", 2]
    assert train_net(*words, *recording, "SOLVER.MAX_ITER", 4) == 0
    assert train_net("--resume", "--output-dir", folder / "run", "SOLVER.MAX_ITER", 6) == 0
    assert (folder / "run" / "config.2.yaml").is_file()
    return folder


def damage(path, kind, place, bit):
    """Do to the file what ``kind`` says, at the part ``place`` of its length."""
    content = b""
    if os.path.isfile(path) and kind in ("cut", "flip"):
        with open(path, "rb") as file:
            content = file.read()
    shutil.rmtree(path) if os.path.isdir(path) else os.path.lexists(path) and os.remove(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    at = int(place * max(len(content) - 1, 0))
    if kind == "flip" and content:
        content = content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :]
    elif kind == "list":
        content = LISTS.get(path.rsplit(".", 1)[-1], "[1, [2]]").encode()
    elif kind == "noise":
        content = bytes(range(256))[int(place * 255) :] * 3
    elif kind == "other":
        content = b'{"iteration": 3, "metric": [], "evaluations": {}, "metrics": {"bbox": 3}, "MODEL": 4}'
    else:
        content = content[:at]
    if kind == "folder":
        os.makedirs(os.path.join(path, "inner"))
    elif kind == "link":
        os.symlink("nowhere/at/all", path)
    elif kind != "missing":
        with open(path, "wb") as file:
            file.write(content)


COMMANDS = {
    "resume": lambda folder, other: train_net("--resume", "--output-dir", folder, "SOLVER.MAX_ITER", 7),
    "evaluate": lambda folder, other: train_net("--resume", "--eval-only", "--output-dir", folder),
    "report": lambda folder, other: status(report, folder, "--pictures", 0, "--images", 2),
    "predict": lambda folder, other: status(
        predict, "--run", folder, "--input", other / "val" / "0.png", "--output", other / "found", "--overwrite"
    ),
    "compare": lambda folder, other: status(compare, folder, other / "run"),
    "errors": lambda folder, other: status(errors, folder, "--pictures", 0),
}
WRITES = {  # what a command may write, beside what it makes anew
    "resume": (
        "last_checkpoint", "best.json", "metrics.json", "imbalance.jsonl", "results.csv", "results.png", "adaptive.png",
        "model_final.pth", "model_best.pth", "inference",
    ),
    "evaluate": ("inference",), "report": ("imbalance",), "predict": (), "compare": (), "errors": ("inference",),
}  # fmt: skip


def status(main, *words):
    try:
        main([str(word) for word in words])
    except SystemExit as stop:
        return stop.code
    return 0


def contents(folder):
    found = {}
    for base, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(base, name)
            with open(path, "rb") if os.path.exists(path) else open(os.devnull, "rb") as file:
                found[os.path.relpath(path, folder)] = file.read()
    return found


def lines_of(content):
    for line in content.split(b"\n"):
        try:
            yield json.loads(line)["iteration"], line
        except (ValueError, TypeError, KeyError):
            continue


DAMAGES = st.tuples(
    st.sampled_from(FILES),
    st.sampled_from(["cut", "flip", "flip", "empty", "folder", "list", "link", "missing", "noise", "other"]),
    st.floats(0, 1),
    st.integers(0, 7),
)


@given(st.sampled_from(sorted(COMMANDS)), st.lists(DAMAGES, min_size=1, max_size=2))
@settings(max_examples=EXAMPLES, **BOUNDED)
def damaged_runs(run, capfd, command, damages):
    folder = str(run / "copy")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(run / "run", folder)
    for name, *how in damages:
        damage(os.path.join(folder, name), *how)
    before = contents(folder)
    capfd.readouterr()
    ended = COMMANDS[command](folder, run)
    said = "".join(capfd.readouterr())
    OUTCOMES[command, ended] += 1
    assert ended in (0, 2), said[-3000:]
    assert "Traceback" not in said
    if ended == 2:
        told = said[said.rindex("error: ") :]
        assert len(told) < 3000 and (folder in told or str(run) in told or "MODEL." in told or "DATASETS." in told), told
    require_kept(before, contents(folder), command, ended)


def require_kept(before, after, command, ended):
    for name, content in before.items():
        top = name.split(os.sep)[0]
        if top in ("log.txt", "run.lock") or top.startswith("events.") or name not in after:
            assert top == "run.lock" or name in after, f"{name} is gone"
        elif ended == 2 or not top.startswith(WRITES[command]):
            assert after[name] == content, f"{command} changed {name}"
    lines, now = dict(lines_of(before.get("metrics.json", b""))), dict(lines_of(after.get("metrics.json", b"")))
    kept = [iteration for iteration in lines if iteration in now]
    assert len(kept) == len(lines), (lines, now)


def test_every_damaged_run_goes_on_or_is_told(run, capfd, monkeypatch):
    monkeypatch.setattr(build, "evaluate_model", lambda *args, **kwargs: {"bbox": {"AP": 1.0}})
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **kwargs: open(path, "wb").close())
    damaged_runs(run, capfd)
    assert {ended for _, ended in OUTCOMES} == {0, 2} and len({command for command, _ in OUTCOMES}) == len(COMMANDS), OUTCOMES
