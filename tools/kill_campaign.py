"""`make test-kills`: runs are killed at random places, resumed, and compared with runs that nobody disturbed.

    python tools/kill_campaign.py --output DIR [--only SUBSTRING] [--kills 2] [--seed 0]

Every quick config of the repository, and every third LazyConfig twin, is trained for a few iterations on small drawn
images: once unbroken, then once for each of SIGKILL, SIGTERM and SIGINT (Ctrl-C), with up to ``--kills`` kills each. What
may be interrupted is counted in the unbroken run: before and after each hook of each step, before and after each file
that takes its name, before each image of an evaluation. A kill comes at one of these places, drawn from the seed. In the
end weights, optimizer, all other state, metrics.json and the other results have to be the same to the bit, but for times.

Ends with status 1 if anything differs; takes some 15 minutes of a CPU.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import random
import shutil
import signal
import sys
import time
import zlib

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [ROOT, os.path.join(ROOT, "tests")]

import d2_balanced  # noqa: E402, F401  (first: it makes detectron2 importable)
import torch  # noqa: E402
from d2_balanced.data.proposal_files import write_proposals  # noqa: E402
from d2_balanced.engine import build, history, stopping  # noqa: E402
from detectron2.engine import HookBase  # noqa: E402
from tiny_runs import checkpoint, data_arguments, differences, make_dataset, told, train_net  # noqa: E402

SIGNALS = {"SIGKILL": -signal.SIGKILL, "SIGTERM": 128 + signal.SIGTERM, "SIGINT": 128 + signal.SIGINT}  # and status
YAML = """
    MODEL.RESNETS.DEPTH 50 MODEL.RESNETS.RES2_OUT_CHANNELS 8 MODEL.RESNETS.WIDTH_PER_GROUP 2
    MODEL.RESNETS.STEM_OUT_CHANNELS 8 MODEL.RPN.BATCH_SIZE_PER_IMAGE 16 MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE 16
    MODEL.RPN.PRE_NMS_TOPK_TRAIN 50 MODEL.RPN.POST_NMS_TOPK_TRAIN 20 MODEL.RPN.PRE_NMS_TOPK_TEST 20
    MODEL.RPN.POST_NMS_TOPK_TEST 10 INPUT.MIN_SIZE_TRAIN (48,64) INPUT.MAX_SIZE_TRAIN 96 INPUT.MIN_SIZE_TEST 48
    INPUT.MAX_SIZE_TEST 96 SOLVER.IMS_PER_BATCH 2 SOLVER.WARMUP_ITERS 3 SOLVER.LOG_PERIOD 2 SOLVER.CHECKPOINT_PERIOD 3
    TEST.EVAL_PERIOD 3 SEED 5
""".split()
LAZY = """
    dataloader.train.total_batch_size=2 dataloader.train.mapper.augmentations.0.short_edge_length=[48]
    dataloader.test.mapper.augmentations.0.short_edge_length=48 train.log_period=2 train.checkpointer.period=3
    train.eval_period=3 train.seed=5
""".split()


class Places(HookBase):
    """Counts the places where a run may be killed, and sends the signal at one of them."""

    repeats_last_step = True

    def __init__(self, at=0, number=None):
        self.seen, self.at, self.number = 0, at, number

    def here(self, *_):
        self.seen += 1
        if self.seen == self.at:
            os.kill(os.getpid(), self.number)

    before_step = after_step = here

    def install(self):
        """Look at the runs that this process starts from now on."""
        build_hooks, evaluate, replace = build.build_hooks, build.evaluate_model, os.replace

        def hooks_with_places(*args):
            return [each for hook in build_hooks(*args) for each in (hook, Between(self))]

        def evaluate_with_places(experiment, model, *args, **kwargs):
            handle = model.register_forward_pre_hook(self.here)
            try:
                return evaluate(experiment, model, *args, **kwargs)
            finally:
                handle.remove()

        def replace_with_places(*args, **kwargs):
            self.here()
            replace(*args, **kwargs)
            self.here()

        build.build_hooks, build.evaluate_model, os.replace = hooks_with_places, evaluate_with_places, replace_with_places
        stopping.SAME_REQUEST = 0.01
        history.plot_results = lambda rows, path: open(path, "w").close()  # drawing takes longer than training
        history.plot_adaptive = lambda rows, path: None


class Between(HookBase):
    """A place between two hooks; each has to be a hook of its own."""

    repeats_last_step = True

    def __init__(self, places):
        self.before_step = self.after_step = places.here


def run(words, log, at=0, number=None):
    """Train in a process of its own; returns its status (negative: the signal that killed it) and the places it saw."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(output, 1), os.dup2(output, 2)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
            places = Places(at, number)
            places.install()
            status = train_net(*words)
            os.write(write, str(places.seen).encode())
            sys.stdout.flush(), sys.stderr.flush()
        finally:
            os._exit(status)
    os.close(write)
    _, status = os.waitpid(child, 0)
    with os.fdopen(read) as file:
        return os.waitstatus_to_exitcode(status), int(file.read() or 0)


def in_pieces(words, folder, draw, name, places, kills):
    """Train with kills by one signal; returns how often it was killed, and what is wrong."""
    killed = 0
    while killed < kills:
        at = draw.randint(1, max(places, 1))
        resume = ["--resume"] if killed else []
        status, _ = run([*resume, *words], f"{folder}.log", at, getattr(signal, name))
        if status == 0:  # it came to its end before that place
            return killed, ""
        if status not in (SIGNALS[name], -getattr(signal, name)):  # before there is anything to save, a signal kills
            return killed, f"ended with status {status} after {name} at place {at}"
        killed += 1
        places = places * 2 // 3
    short = ["--resume", "--output-dir", folder]
    begun = os.path.isfile(os.path.join(folder, "last_checkpoint"))
    status, _ = run(short if begun and draw.random() < 0.5 else ["--resume", *words], f"{folder}.log")
    # It may have been killed when all was done.
    return killed, "" if status == 0 or (status == 2 and _says(folder, "Nothing is left")) else f"resume ended with {status}"


def _says(folder, text):
    with open(f"{folder}.log", encoding="utf-8", errors="replace") as file:
        return text in file.read()[-2000:]


def compare(one, other):
    """What differs between the folders of two runs, as text; empty if nothing does."""
    found = []
    for name in ("model_final.pth", "model_best.pth"):
        paths = [os.path.join(folder, name) for folder in (one, other)]
        if os.path.isfile(paths[0]) != os.path.isfile(paths[1]):
            found.append(f"{name} is in one only")
        elif os.path.isfile(paths[0]):
            found += [f"{name}{place}" for place in differences(checkpoint(one, name), checkpoint(other, name))[:5]]
    if told(one) != told(other):
        found.append("metrics.json")
    for name in ("best.json", "imbalance.jsonl", "inference/own_val/metrics.json"):
        if _content(os.path.join(one, name)) != _content(os.path.join(other, name)):
            found.append(name)
    return ", ".join(found)


def _content(path):
    if not os.path.isfile(path):
        return None
    with open(path, encoding="utf-8") as file:
        return file.read()


def configs(only):
    """Paths of the quick configs, yaml first; of the lazy twins every third."""
    patterns = ("configs/quick/*", "projects/*/configs/*quick*", "projects/*/configs/quick/*")
    files = sorted(file for pattern in patterns for file in glob.glob(os.path.join(ROOT, pattern)))
    lazy = [file for file in files if file.endswith(".py")][::3]
    return [file for file in [file for file in files if file.endswith(".yaml")] + lazy if only in file]


def try_config(config, data, output, args):
    """One unbroken run and three that are killed; returns (kills, runs, what is wrong)."""
    name = os.path.relpath(config, ROOT).replace(os.sep, "+")
    yaml = config.endswith(".yaml")
    length = ["SOLVER.MAX_ITER", args.iterations] if yaml else [f"train.max_iter={args.iterations}"]
    more = _recording(zlib.crc32(name.encode()) % 2, yaml, config)
    more += _proposals(data, output, yaml) if os.path.basename(config).startswith("fast_rcnn") else []

    def words(folder):
        return ["--config-file", config, *data, "--output-dir", folder, *(YAML if yaml else LAZY), *length, *more]

    unbroken = os.path.join(output, name, "unbroken")
    os.makedirs(os.path.dirname(unbroken), exist_ok=True)
    status, places = run(words(unbroken), f"{unbroken}.log")
    if status:
        return 0, 1, [f"{name}: does not train, see {unbroken}.log"]
    kills, runs, wrong = 0, 1, []
    for number in SIGNALS:
        draw = random.Random(f"{args.seed} {name} {number}")
        folder = os.path.join(output, name, number)
        killed, problem = in_pieces(words(folder), folder, draw, number, places, args.kills)
        problem = problem or compare(unbroken, folder)
        kills, runs = kills + killed, runs + killed + 1
        if problem:
            wrong.append(f"{name}, {number}: {problem}")
        else:
            shutil.rmtree(folder)
    if not wrong:
        shutil.rmtree(os.path.dirname(unbroken))
    return kills, runs, wrong


def _recording(wanted, yaml, config):
    """Settings that record what is trained on, for half of the configs of two-stage detectors."""
    if not wanted or "retinanet" in config or "rpn" in os.path.basename(config):
        return []
    return ["ANALYSIS.RECORD", True, "ANALYSIS.PERIOD", 4] if yaml else ["train.record_imbalance.enabled=true"]


def _proposals(data, output, yaml):
    """Settings of a detector without an RPN: one proposal an image."""
    words = []
    for split, path in (("train", data[1]), ("test", data[5])):
        file = os.path.join(output, f"{split}.pkl")
        with open(path, encoding="utf-8") as annotations:
            ids = [image["id"] for image in json.load(annotations)["images"]]
        write_proposals(file, ids, [[[4.0, 4.0, 30.0, 30.0]]] * len(ids), [[1.0]] * len(ids))
        key = f"DATASETS.PROPOSAL_FILES_{split.upper()}"
        words += [key, f"('{file}',)"] if yaml else [f"dataloader.{split}.dataset.proposal_files=[{file}]"]
    return words


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", required=True, help="folder for the runs; those that are equal are deleted")
    parser.add_argument("--only", default="", help="only configs whose path has this in it")
    parser.add_argument("--iterations", type=int, default=8)
    parser.add_argument("--kills", type=int, default=2, help="kills a run, at most")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.makedirs(args.output, exist_ok=True)
    output = os.path.abspath(args.output)
    train, val = (make_dataset(os.path.join(output, name), n, n) for name, n in (("train", 6), ("val", 3)))
    kills = runs = 0
    wrong = []
    for config in configs(args.only):
        started = time.time()
        killed, ran, found = try_config(config, data_arguments(train, val), output, args)
        kills, runs, wrong = kills + killed, runs + ran, wrong + found
        print(json.dumps({"config": os.path.relpath(config, ROOT), "runs": ran, "kills": killed, "wrong": found,
                          "seconds": round(time.time() - started)}), flush=True)
    print(f"{runs} runs, {kills} kills, {len(wrong)} that differ" + "".join(f"\n  {each}" for each in wrong))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
