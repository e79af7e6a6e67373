"""Dynamic R-CNN's components in several processes; as a program, one of the processes: RANK WORLD_SIZE FOLDER."""

import sys

import d2_balanced  # noqa: F401  (first: it makes detectron2 importable)
import numpy as np
import torch

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


def run_process(rank, world_size, folder):
    """Train this process's stream; leave the values that were in force and the states in ``<folder>/<rank>.pth``."""
    torch.set_num_threads(1)
    rendezvous = f"file://{folder}/rendezvous"
    torch.distributed.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=world_size)
    matcher, loss = components(*SETTINGS)
    used = [step(matcher, loss, batch, i)[0] for i, batch in enumerate(process_streams()[rank])]
    state = {"used": used, "matcher": matcher.state_dict(), "loss": loss.state_dict()}
    torch.save(state, f"{folder}/{rank}.pth")
    torch.distributed.destroy_process_group()



if __name__ == "__main__":
    run_process(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
