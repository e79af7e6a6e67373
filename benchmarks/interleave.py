"""Times variants of a computation against each other in one run.

The machines that these benchmarks run on are shared and noisy, so only ratios count: every round runs all variants once,
in an order that rotates, and the ratio to the first variant is taken within the round.
"""

import multiprocessing
import resource
import statistics
import time

import torch
from tabulate import tabulate

__all__ = ["time_interleaved", "peak_memory", "report", "environment"]


def _synchronize(device):
    if device == "cuda":
        torch.cuda.synchronize()


def time_interleaved(variants, rounds, device="cpu", warmup=2, clock=time.perf_counter):
    """Seconds of every round of every variant.

    Args:
        variants: dict of name to function without arguments; the first is the reference.
        rounds: timed rounds; ``warmup`` more come before them.
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


def report(seconds, memory=None):
    """A Markdown table: median time, and median, 25 % and 75 % quartile of the ratio to the first variant."""
    reference = next(iter(seconds.values()))
    rows = []
    for name, times in seconds.items():
        ratios = [t / r for t, r in zip(times, reference)]
        low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        row = [name, f"{1e3 * statistics.median(times):.2f}", f"{middle:.3f}", f"{low:.3f} - {high:.3f}"]
        rows.append(row + ([f"{memory[name] / 2**20:.0f}"] if memory else []))
    headers = ["variant", "median ms", "ratio", "quartiles"] + (["peak MiB"] if memory else [])
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def _peak_of(function, queue):
    function()
    used = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    queue.put(used)


def peak_memory(variants):
    """Peak memory in bytes of each variant, run once in a process of its own: on CUDA what torch allocated, on the CPU
    the resident set of the process. The functions must be importable (no lambdas)."""
    context = multiprocessing.get_context("spawn")
    peaks = {}
    for name, function in variants.items():
        queue = context.Queue()
        process = context.Process(target=_peak_of, args=(function, queue))
        process.start()
        peaks[name] = queue.get()
        process.join()
    return peaks


def environment(device):
    """One line with what the figures depend on."""
    import detectron2

    hardware = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    return f"{hardware}; torch {torch.__version__}, detectron2 {detectron2.__version__}"
