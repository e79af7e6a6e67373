"""Dynamic R-CNN's components in several processes; as a program, run by torchrun: FOLDER."""

import sys

import d2_balanced  # noqa: F401  (first: it makes detectron2 importable)
import numpy as np
import torch
from detectron2.utils import comm

from d2_balanced.engine.distributed import launch
from dynamic_streams import components, random_stream, step

SETTINGS = (4, 3, 3)  # k_iou, k_error, period


def process_streams():
    """Two processes' streams, of three windows; what the second sees often has no GT, what both see once."""
    streams = [random_stream(seed, 9, without_gt=0.0, zeros=0.0) for seed in (1, 2)]
    streams = [[[i for i in batch if len(i)] or [np.ones((1, 4), np.float32)] for batch in s] for s in streams]
    for i in (1, 3, 4, 6, 7, 8):
        streams[1][i] = [None, streams[1][i][0]]
    streams[0][4] = [None]
    return streams


def run_process(folder):
    """Train this process's stream; leave the values that were in force and the states in ``<folder>/<rank>.pth``."""
    torch.set_num_threads(1)
    matcher, loss = components(*SETTINGS)
    used = [step(matcher, loss, batch, i)[0] for i, batch in enumerate(process_streams()[comm.get_rank()])]
    state = {"used": used, "matcher": matcher.state_dict(), "loss": loss.state_dict()}
    torch.save(state, f"{folder}/{comm.get_rank()}.pth")


if __name__ == "__main__":
    launch(run_process, (sys.argv[1],))
