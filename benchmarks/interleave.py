"""The command line and the table that the benchmarks share; how they time is in ``d2_balanced/utils/interleave.py``."""

import argparse
import functools
import statistics
import time

import torch
from d2_balanced.utils.interleave import peak_memory, quartiles, ratios, time_interleaved
from tabulate import tabulate

__all__ = [
    "benchmark_parser",
    "environment",
    "headline",
    "memory_of_steps",
    "parse",
    "peak_memory",
    "ratio_line",
    "report",
    "time_interleaved",
]


def benchmark_parser(doc, config_file="", *, parts=(), rounds=30, images=4, size=256):
    """A parser with what all benchmarks take, the name of a part where there are several, and with a ``config_file``
    also what those of detectors take."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if parts:
        parser.add_argument("part", choices=parts)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpu-time", action="store_true", help="of this process: steadier where others run, CPU only")
    if config_file:
        parser.add_argument("--config-file", default=config_file)
        parser.add_argument("--images", type=int, default=images)
        parser.add_argument("--size", type=int, default=size, help="side of the square images, in pixels")
        parser.add_argument("--objects", type=int, default=10, help="objects an image")
        parser.add_argument("--no-memory", action="store_true", help="skip peak memory: a process a variant")
        parser.add_argument("opts", nargs="*", help="overrides of config keys: KEY VALUE ...")
    return parser


def parse(parser):
    """The arguments, with ``clock`` among them; sets torch's number of threads."""
    args = parser.parse_intermixed_args()  # overrides may stand apart from the part
    args.clock = time.process_time if args.cpu_time else time.perf_counter
    torch.set_num_threads(args.threads)
    return args


def headline(args):
    """One line: the config, the images and the machine."""
    images = f"{args.images} images of {args.size} px"
    return f"{args.config_file}, {images}, {args.rounds} rounds; {environment(args.device)}"


def report(seconds, memory=None):
    """A Markdown table: median time, and median, 25 % and 75 % quartile of the ratio to the first variant."""
    reference = next(iter(seconds.values()))
    rows = []
    for name, times in seconds.items():
        low, middle, high = quartiles(ratios(times, reference))
        row = [name, f"{1e3 * statistics.median(times):.2f}", f"{middle:.3f}", f"{low:.3f} - {high:.3f}"]
        rows.append(row + ([f"{memory[name] / 2**20:.0f}"] if memory else []))
    headers = ["variant", "median ms", "ratio", "quartiles"] + (["peak MiB"] if memory else [])
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def _run_steps(make_step, args, name):
    torch.set_num_threads(args.threads)
    step = make_step(args, name)
    for _ in range(5):
        step()


def memory_of_steps(make_step, args, names):
    """Peak memory of five steps of each variant; ``make_step(args, name)`` gives a function that takes one, and must be
    importable. ``None`` with ``--no-memory``."""
    if args.no_memory:
        return None
    return peak_memory({name: functools.partial(_run_steps, make_step, args, name) for name in names})


def ratio_line(name, times, references, limit=None):
    """One line: median and quartiles of the time over a sum of other times, within the rounds."""
    low, middle, high = quartiles(ratios(times, map(sum, zip(*references))))
    asked = "" if limit is None else f", asked for at most {limit}"
    return f"{name}: {middle:.3f} ({low:.3f} - {high:.3f}){asked}"


def environment(device):
    """One line with what the figures depend on."""
    import detectron2

    hardware = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    return f"{hardware}; torch {torch.__version__}, detectron2 {detectron2.__version__}"
