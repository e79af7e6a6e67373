"""One start-up for a single process, ``--num-gpus``, torchrun and srun; and what several processes share."""

import logging
import os
import re
from collections import namedtuple

import torch
import torch.distributed as dist
from detectron2.engine import launch as detectron2_launch
from detectron2.utils import comm
from torch.nn.parallel import DistributedDataParallel

from ..utils.constructing import constructing
from ..utils.errors import DataError, LaunchError, UsageError, usage
from ..utils.reductions import message_device

__all__ = ["launch", "wrap_ddp", "broadcast_buffers", "raise_in_all"]

# What torch raises where an address is missing, taken or not reached; torch 2.0 has no types of its own for it.
_RENDEZVOUS_ERRORS = tuple(getattr(dist, name) for name in ("DistNetworkError", "DistStoreError") if hasattr(dist, name))

# ProcessPlace: of one process in the job, and among those of its machine
ProcessPlace = namedtuple("ProcessPlace", ["rank", "world_size", "local_rank", "local_size"])


def launch(main, args=(), num_gpus=1, num_machines=1, machine_rank=0, dist_url="auto"):
    """Run ``main(*args)`` in every process of the job.

    - ``num_gpus`` or ``num_machines`` above 1: detectron2's own launcher starts a process per GPU.
    - Started by ``torchrun``, or as a task of ``srun``: this process is one of them. The group is made (NCCL where
      there is CUDA, gloo on the CPU), detectron2's per-machine group too, and both are destroyed after ``main``.
    - Otherwise ``main`` is simply called, and its result returned.

    Args:
        main: importable function (processes are spawned with it).
        args: its arguments, picklable.
        num_gpus: processes to start on each machine, one GPU each; 0 is the same as 1.
        num_machines, machine_rank, dist_url: as in detectron2; ``dist_url="auto"`` serves one machine.

    Raises:
        LaunchError: more GPUs asked for than there are, or both torchrun and ``--num-gpus``.
    """
    _check_request(num_gpus, num_machines, machine_rank, dist_url)
    num_gpus = max(num_gpus, 1)
    if num_gpus * num_machines == 1:
        place = place_from_environment(os.environ)
        return main(*args) if place is None else _run_in_group(place, main, args)
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        raise LaunchError(
            f"torchrun has started {os.environ['WORLD_SIZE']} processes already; leave out --num-gpus {num_gpus} and "
            f"--num-machines {num_machines}"
        )
    if torch.cuda.device_count() < num_gpus:
        raise LaunchError(
            f"--num-gpus {num_gpus} needs as many CUDA devices, and this machine has {torch.cuda.device_count()}. "
            f"For several processes on the CPU start it with: torchrun --nproc_per_node {num_gpus} train_net.py ..."
        )
    return detectron2_launch(_run_and_leave, num_gpus, num_machines, machine_rank, dist_url, args=(main, args))


def place_from_environment(environ):
    """Rank and world size that torchrun, or else srun, gave this process; None if neither started it.

    Under srun, ``environ`` also gets the address of the first node, which torch's ``env://`` start-up reads.
    """
    if "RANK" in environ and "WORLD_SIZE" in environ:
        rank, world_size = int(environ["RANK"]), int(environ["WORLD_SIZE"])
        local_size = int(environ.get("LOCAL_WORLD_SIZE", world_size))
        return ProcessPlace(rank, world_size, int(environ.get("LOCAL_RANK", rank % local_size)), local_size)
    if int(environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:  # set by srun only; sbatch alone starts one process
        return _place_from_slurm(environ)
    return None


def wrap_ddp(model, **kwargs):
    """``DistributedDataParallel`` around ``model`` on its device, CPU included; the model itself for one process.

    Buffers are not broadcast at every step (see :func:`broadcast_buffers`). ``find_unused_parameters`` is on, as it
    keeps DDP from regrouping the gradients after the first iteration: with more than two processes that changes the
    order of summation, and a resumed run would differ in the last bits. ``kwargs`` override all of it.
    """
    if comm.get_world_size() == 1:
        return model
    device = next(model.parameters()).device
    if device.type == "cpu" and dist.get_backend() == "nccl":
        raise LaunchError(
            "the model is on the CPU, but the processes were joined by NCCL, as this machine has CUDA; hide it with "
            "CUDA_VISIBLE_DEVICES= to train on the CPU"
        )
    settings = dict(
        device_ids=None if device.type == "cpu" else [device.index],
        broadcast_buffers=False,
        find_unused_parameters=True,
    )
    settings.update(kwargs)
    if settings["find_unused_parameters"] and comm.is_main_process():
        logging.getLogger(__name__).info(
            "DistributedDataParallel is told to look for unused parameters, which keeps resumed runs exact; torch's "
            "warning about it can be ignored."
        )
    with constructing("train.ddp", {f"train.ddp.{name}": value for name, value in kwargs.items()}):
        return DistributedDataParallel(model, **settings)


@torch.no_grad()
def broadcast_buffers(model):
    """Overwrite every process's buffers (batch statistics...) with those of rank 0: call it before evaluating.

    One message, whatever the number of buffers; bits are kept. Nothing happens in a single process.
    """
    buffers = list(model.buffers())
    if comm.get_world_size() == 1 or not buffers:
        return
    packed = torch.cat([_as_bytes(buffer).to(message_device(buffer)) for buffer in buffers])
    dist.broadcast(packed, src=0)
    sizes = [buffer.numel() * buffer.element_size() for buffer in buffers]
    for buffer, data in zip(buffers, packed.split(sizes)):
        buffer.copy_(data.clone().view(buffer.dtype).view(buffer.shape))


def raise_in_all(error):
    """Raise in every process what the main one hands over, an exception; nothing happens if that is None.

    All processes call it. The others raise a ``DataError`` for a ``UsageError``, which all say in the same words, and
    ``RuntimeError`` for anything else, whose traceback is the main process's to show.
    """
    told = None if error is None else (isinstance(error, UsageError), type(error).__name__, str(error))
    told = comm.all_gather(told)[0]
    if error is not None:
        raise error
    if told is not None:
        is_usage, name, text = told
        raise DataError(text) if is_usage else RuntimeError(f"the main process failed: {name}: {text}")


def _check_request(num_gpus, num_machines, machine_rank, dist_url):
    if num_gpus < 0 or num_machines < 1 or not 0 <= machine_rank < num_machines:
        raise LaunchError(
            "launch: --num-gpus must be at least 0, --num-machines at least 1 and --machine-rank below it; got "
            f"{num_gpus}, {num_machines} and {machine_rank}"
        )
    if num_machines > 1 and dist_url == "auto":
        raise LaunchError("launch: several machines need --dist-url tcp://<address of machine 0>:<port>, not 'auto'")


def _place_from_slurm(environ):
    first_entry = re.match(r"(?:\[[^]]*\]|[^,])+", environ["SLURM_STEP_NODELIST"]).group()  # gpu[03-04,09]
    environ.setdefault("MASTER_ADDR", re.sub(r"\[(\d+)[^]]*\]", r"\1", first_entry))  # gpu03
    environ.setdefault("MASTER_PORT", str(20000 + int(environ.get("SLURM_JOB_ID", 0)) % 20000))
    environ["RANK"], environ["WORLD_SIZE"] = environ["SLURM_PROCID"], environ["SLURM_STEP_NUM_TASKS"]
    local_size = int(re.match(r"\d+", environ["SLURM_STEP_TASKS_PER_NODE"]).group())
    return ProcessPlace(int(environ["RANK"]), int(environ["WORLD_SIZE"]), int(environ["SLURM_LOCALID"]), local_size)


def _run_in_group(place, main, args):
    cuda = torch.cuda.is_available()
    if cuda and place.local_rank >= torch.cuda.device_count():
        raise LaunchError(
            f"process {place.local_rank} of this machine has no GPU: there are {torch.cuda.device_count()}. Start "
            "fewer processes, or set CUDA_VISIBLE_DEVICES= to use the CPU"
        )
    if cuda:
        torch.cuda.set_device(place.local_rank)
    with usage("The processes cannot find each other", ValueError, *_RENDEZVOUS_ERRORS, error=LaunchError):
        dist.init_process_group("nccl" if cuda else "gloo")
    _make_local_group(place)
    return _run_and_leave(main, args)


def _make_local_group(place):
    """detectron2 (0.6 and main) finds the ranks of this machine in ``comm._LOCAL_PROCESS_GROUP``."""
    for first in range(0, place.world_size, place.local_size):
        group = dist.new_group(list(range(first, min(first + place.local_size, place.world_size))))
        if first <= place.rank < first + place.local_size:
            comm._LOCAL_PROCESS_GROUP = group


def _run_and_leave(main, args):
    """Call ``main`` and leave the group. Not after an error: the others may wait for this process, which must end."""
    try:
        result = main(*args)
    except SystemExit as stop:
        if not stop.code:
            _leave_group()
        raise
    _leave_group()
    return result


def _leave_group():
    comm.synchronize()
    dist.destroy_process_group()
    comm._LOCAL_PROCESS_GROUP = None
    comm._get_global_gloo_group.cache_clear()


def _as_bytes(tensor):
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
