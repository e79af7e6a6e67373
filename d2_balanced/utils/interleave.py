"""Computations timed against each other in one run, and the memory that each takes.

Machines are shared and noisy, so only ratios count: every round runs all variants once, in an order that rotates, and
the ratio to the first variant is taken within the round.
"""

import multiprocessing
import statistics
import sys
import time

from .memory import peak_resident

__all__ = ["peak_memory", "quartiles", "ratios", "time_interleaved"]


def time_interleaved(variants, rounds, device="cpu", warmup=2, clock=time.perf_counter):
    """Seconds of every round of every variant.

    Args:
        variants: dict of name to function without arguments; the first is the reference.
        rounds: timed rounds; ``warmup`` more come before them.
        device: "cuda": what it has been given is waited for, before and after.
        clock: function that gives seconds; on the CPU ``time.process_time`` leaves out the time of other processes.

    Returns a dict of name to list of seconds, of length ``rounds``.
    """
    names = list(variants)
    seconds = {name: [] for name in names}
    for r in range(warmup + rounds):
        for name in names[r % len(names) :] + names[: r % len(names)]:
            _synchronize(device)
            start = clock()
            variants[name]()
            _synchronize(device)
            if r >= warmup:
                seconds[name].append(clock() - start)
    return seconds


def _synchronize(device):
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize()


def ratios(times, references):
    """The ratio of each round's time to that of the reference in the same round."""
    return [time_ / reference for time_, reference in zip(times, references)]


def quartiles(values):
    """(25 % quartile, median, 75 % quartile); three times the value where there is one."""
    return tuple(statistics.quantiles(values, n=4)) if len(values) > 1 else tuple(values) * 3


def peak_memory(variants):
    """Peak memory in bytes of each variant, run once in a process of its own: on CUDA what torch allocated, on the CPU
    the resident set of the process. The functions must be importable (no lambdas); ``RuntimeError`` for one that fails.
    """
    return {name: _in_own_process(name, function) for name, function in variants.items()}


def _in_own_process(name, function):
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_tell_peak, args=(function, sender), daemon=True)
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise RuntimeError(f"The process that measures the memory of {name!r} has failed.") from None
    finally:
        process.kill()  # it may have threads that would not end
        process.join()


def _tell_peak(function, sender):
    function()
    torch = sys.modules.get("torch")
    on_gpu = torch is not None and torch.cuda.is_available() and torch.cuda.max_memory_allocated()
    sender.send(on_gpu or peak_resident())
