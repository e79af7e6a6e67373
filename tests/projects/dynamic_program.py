"""Run by test_dynamic_rcnn.py under torchrun: trains, and leaves what a process saw in <folder>/<rank>.json."""

import json
import os
import sys

import d2_balanced  # noqa: F401  (first: it makes detectron2 importable)
from detectron2.engine import HookBase
from detectron2.utils import comm

from d2_balanced.engine import build, run
from d2_balanced.train import argument_parser
from d2_balanced.engine.distributed import launch


class Watch(HookBase):
    """Keeps, for every step, the statistics of this process and the values in force after it."""

    def __init__(self, model, path):
        heads = model.roi_heads
        self.matcher, self.loss, self.path = heads.proposal_matcher, heads.box_predictor.box_loss, path
        self.statistics, self.steps = [], []
        for window in (self.matcher.window, self.loss.window):
            window.record = self.kept(window.record)

    def kept(self, record):
        def keep(statistic, iteration):
            self.statistics.append(None if statistic is None else float(statistic))
            return record(statistic, iteration)

        return keep

    def after_step(self):
        self.steps.append([self.statistics[-2:], [float(self.matcher.threshold), float(self.loss.beta)]])

    def after_train(self):
        with open(self.path, "w") as file:
            json.dump(self.steps, file)


def main(words):
    args = argument_parser().parse_args(words)
    build_hooks = build.build_hooks

    def with_watch(experiment, trainer, checkpointer):
        path = os.path.join(args.output_dir, f"{comm.get_rank()}.json")
        return build_hooks(experiment, trainer, checkpointer) + [Watch(checkpointer.model, path)]

    build.build_hooks = with_watch
    experiment = run.load_experiment(args)
    run.train(run.prepare(experiment, resume=False), experiment)


if __name__ == "__main__":
    launch(main, (sys.argv[1:],))
