"""Training step while the imbalance is recorded (``--imbalance-report``) against the same step without, in one run.

    python benchmarks/recording.py --config-file configs/quick/faster_rcnn_R_18_FPN.yaml --rounds 20

What the recorder counts in every step is timed, not the line that ends a window, nor the gradient norms, which take a
backward pass for every head and are off unless asked for.
"""

import d2_balanced  # noqa: F401  (first: makes detectron2 importable)
from interleave import benchmark_parser, headline, memory_of_steps, parse, report, time_interleaved
from train_step import batch_of, config_of, training_step

from d2_balanced.recording.recorder import ImbalanceRecorder
from d2_balanced.recording.hook import find_recorded_heads

VARIANTS = ("plain", "recorded")


def step_of(args, name):
    """A function that takes one training step, recorded or not."""
    cfg = config_of(args)
    return training_step(cfg, batch_of(cfg, args), make_hook=record if name == "recorded" else None)


def record(model):
    """Let a recorder see every step. There is nothing to do after the backward pass."""
    heads = find_recorded_heads(model)
    heads.observers.append(ImbalanceRecorder(heads))
    return lambda: None


def main():
    args = parse(benchmark_parser(__doc__, "configs/quick/faster_rcnn_R_18_FPN.yaml", rounds=20))
    steps = {name: step_of(args, name) for name in VARIANTS}
    seconds = time_interleaved(steps, args.rounds, args.device, clock=args.clock)
    print(f"{headline(args)}\n\n{report(seconds, memory_of_steps(step_of, args, VARIANTS))}")


if __name__ == "__main__":
    main()
