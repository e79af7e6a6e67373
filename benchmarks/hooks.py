"""What each hook of a training costs in a step, beside the step itself, in one run on own data.

    python benchmarks/hooks.py --data DIR --cpu-time --config-file DynamicRCNN/dynamic_quick --add RGA_PRM/rga ANALYSIS.RECORD True

A run is prepared as ``train_net.py`` does, and trained for ``--iterations`` steps. Each call of a hook is timed, but those of
the first ``--warmup`` steps. With ``--cpu-time`` it is the time of this process alone, of all its threads.
"""

import argparse
import tempfile
import time
from collections import defaultdict

from d2_balanced.data.layouts import data_of_folder
from d2_balanced.engine import run
from d2_balanced.engine.experiment import OwnData
from d2_balanced.engine.open import open_experiment
from interleave import environment
from tabulate import tabulate

_CALLS = ("before_step", "after_backward", "after_step")


def parser():
    """Which config is trained on what, for how long."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", default="quick/faster_rcnn_R_18_FPN")
    parser.add_argument("--add", action="append", default=[], metavar="FRAGMENT")
    parser.add_argument("--data", required=True, metavar="DIR", help="a folder in COCO's, YOLO's or Pascal VOC's layout")
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--warmup", type=int, default=20)
    parser.add_argument("--cpu-time", action="store_true", help="steadier where others run")
    parser.add_argument("opts", nargs="*", help="overrides of config keys: KEY VALUE ...")
    return parser


def timed(trainer, clock, first, last):
    """``{name: {call: seconds}}``, filled while the trainer runs, of the steps ``first .. last - 1``."""
    seconds = defaultdict(lambda: defaultdict(float))

    def measure(owner, call, name):
        function = getattr(owner, call)

        def timed_call(*args):
            start = clock()
            result = function(*args)
            if first <= trainer.iter < last:
                seconds[name][call] += clock() - start
            return result

        setattr(owner, call, timed_call)

    measure(trainer, "run_step", "the step")
    for hook in trainer._hooks:
        for call in filter(lambda each: hasattr(hook, each), _CALLS):
            measure(hook, call, type(hook).__name__)
    return seconds


def rows_of(seconds, steps):
    """Milliseconds a step of each, and its share of the step."""
    in_hooks = sum(of.get("after_backward", 0) for name, of in seconds.items())
    of_step = seconds["the step"]["run_step"] - in_hooks  # after_backward is called in it
    rows = [["the step", 1e3 * of_step / steps, 100.0]]
    for name, of in seconds.items():
        if name != "the step":
            spent = sum(of.values())
            rows.append([name, 1e3 * spent / steps, 100 * spent / of_step])
    return [*rows, ["all hooks", *(sum(row[k] for row in rows[1:]) for k in (1, 2))]]


def main():
    args = parser().parse_intermixed_args()
    data = OwnData(*data_of_folder(args.data)[:2])  # nothing is evaluated
    experiment = open_experiment(args.config_file, args.opts, data, args.add)
    with tempfile.TemporaryDirectory() as folder:
        last = args.warmup + args.iterations
        experiment.set_run(output_dir=folder, seed=1)
        experiment.set_schedule(experiment.schedule.with_max_iter(last + 1)._replace(checkpoint_period=last + 1))
        trainer = run.prepare(experiment)
        seconds = timed(trainer, time.process_time if args.cpu_time else time.perf_counter, args.warmup, last)
        trainer.train(0, last + 1)  # the last step writes a checkpoint, and is not counted
    rows = [[name, f"{ms:.3f}", f"{share:.2f} %"] for name, ms, share in rows_of(seconds, args.iterations)]
    print(f"{args.config_file} {' '.join(args.add)}, {args.iterations} steps; {environment('cpu')}\n")
    print(tabulate(rows, ["", "ms a step", "of the step"], tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
