"""The start of a run: output folder, log, device, seed, and what changed since the run was stopped."""

from __future__ import annotations

import itertools
import logging
import os
import platform
import re
from typing import List

import torch
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from ..recording.file import FILE as RECORDING
from ..utils.command import command_line
from ..utils.errors import CheckpointError, ConfigError, LaunchError, OutputError
from ..utils.json_lines import read_metrics
from ..utils.output_folder import require_files, require_writable
from .experiment import Experiment
from .fetch import fetch
from .identity import changed_keys
from .writers import is_evaluation

__all__ = [
    "CONFIG",
    "choose_device",
    "configs_in",
    "is_evaluated",
    "keep_older_metrics",
    "refuse_other_run",
    "require_device",
    "require_divisible",
    "require_run_folder",
    "require_weights",
    "save_config",
    "start_log",
]

CONFIG = "config.yaml"
_CHANGED_CONFIG = re.compile(r"config\.(\d+)\.yaml")

logger = logging.getLogger(__name__)

_DEVICE = "MODEL.DEVICE / train.device"


def require_run_folder(output_dir: str) -> None:
    """Make the output folder, and raise ``OutputError`` if a run or an evaluation could not write its files there."""
    require_writable(output_dir, "--output-dir, OUTPUT_DIR (yaml) or train.output_dir (LazyConfig)")
    require_files(output_dir)


def refuse_other_run(output_dir: str) -> None:
    """Raise ``OutputError`` if the folder holds checkpoints: a new run there would overwrite them."""
    names = os.listdir(output_dir) if os.path.isdir(output_dir) else []
    found = sorted(name for name in names if name.startswith("model_") and name.endswith(".pth"))
    if found:
        raise OutputError(
            f"The output folder {output_dir!r} already holds a run ({', '.join(found[-3:])}). Add --resume to continue "
            "it, choose another folder with --output-dir, or delete the old run first."
        )


def require_weights(path: str) -> None:
    """Fetch initial weights that are a URL. Raises ``CheckpointError`` if that fails, or if there is no such file."""
    if "://" in path:
        fetch(path)
    elif path and not os.path.isfile(path):
        raise CheckpointError(f"There are no weights at {path!r}; see MODEL.WEIGHTS (yaml) or train.init_checkpoint.")


def require_divisible(batch_size: int, accumulate: int) -> None:
    """Raise ``ConfigError`` unless all processes and forward passes get the same number of images."""
    processes = comm.get_world_size()
    if accumulate < 1 or batch_size < 1 or batch_size % (processes * accumulate):
        raise ConfigError(
            f"The batch size (SOLVER.IMS_PER_BATCH, dataloader.train.total_batch_size) has to be a multiple of the "
            f"{processes} process(es) times SOLVER.ACCUMULATE / train.accumulate: it is {batch_size}, and accumulate "
            f"is {accumulate}."
        )


def is_evaluated(output_dir: str, iteration: int, last: bool) -> bool:
    """Whether the run in this folder has the evaluation after ``iteration`` in its metrics; and if it is the last one,
    what follows from it.
    """
    lines = read_metrics(os.path.join(output_dir, "metrics.json"))
    evaluated = any(line["iteration"] == iteration and is_evaluation(line) for line in lines)
    ended = not last or os.path.isfile(os.path.join(output_dir, "results.png"))
    return comm.all_gather(evaluated and ended)[0]


def keep_older_metrics(output_dir: str) -> None:
    """Rename what a run that never reached a checkpoint measured, so that a new run does not replace it.

    metrics.json and imbalance.jsonl get the same number at their end; files that are not there are passed over.
    """
    paths = [os.path.join(output_dir, name) for name in ("metrics.json", RECORDING)]
    if not comm.is_main_process():
        return
    number = next(n for n in itertools.count(1) if not any(os.path.exists(f"{path}.{n}") for path in paths))
    for path in filter(os.path.isfile, paths):
        os.rename(path, f"{path}.{number}")


def start_log(output_dir: str) -> None:
    """Log to the terminal (main process) and to log.txt; say where this runs."""
    for name in ("detectron2", "fvcore", "d2_balanced"):
        _close_handlers(logging.getLogger(name))  # of an earlier run in this process
        getattr(setup_logger, "__wrapped__", setup_logger)(output_dir, distributed_rank=comm.get_rank(), name=name)
    logger.info("Command: %s", command_line())
    logger.info(
        "Python %s, torch %s, %d process(es), %d thread(s) each, process id %d",
        platform.python_version(), torch.__version__, comm.get_world_size(), torch.get_num_threads(), os.getpid(),
    )


def _close_handlers(of: logging.Logger) -> None:
    for handler in list(of.handlers):
        of.removeHandler(handler)
        handler.close()


def choose_device(wanted: str) -> str:
    """``wanted``, or "cpu" where CUDA is wanted but absent, saying so; ``LaunchError`` for "meta" and unknown ones."""
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise LaunchError(f"{_DEVICE}: torch knows no device {wanted!r}; use cuda or cpu.") from error
    if device.type == "meta":
        raise LaunchError(f"{_DEVICE}: 'meta' has no memory for numbers; use cuda or cpu.")
    if device.type == "cuda" and not torch.cuda.is_available():
        logger.warning("There is no CUDA device here: running on the CPU, with %d thread(s).", torch.get_num_threads())
        return "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:  # of its number, its driver, its backend
        reason = str(error).splitlines()[0].split(". ")[0]
        raise LaunchError(f"{_DEVICE}: {wanted!r} cannot be used here ({reason}); use cuda or cpu.") from error
    return wanted


def require_device(wanted: str) -> str:
    """``wanted``, or ``LaunchError`` where it is not there, also where CUDA is absent."""
    if wanted.split(":")[0] == "cuda" and not torch.cuda.is_available():
        raise LaunchError(f"There is no CUDA device here, and {wanted!r} was asked for: use cpu.")
    return choose_device(wanted)


def configs_in(folder: str) -> List[str]:
    """The configs that a run has saved in its folder: of its last resume with changes first, config.yaml last."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    numbers = {int(match.group(1)): match.group() for match in map(_CHANGED_CONFIG.fullmatch, names) if match}
    newest_first = [numbers[number] for number in sorted(numbers, reverse=True)]
    return [os.path.join(folder, name) for name in newest_first + [CONFIG] * (CONFIG in names)]


def save_config(experiment: Experiment, resumed: bool) -> None:
    """Write config.yaml; at a resume leave it as it is, and keep a changed config beside it, as config.2.yaml and so on."""
    folder = experiment.settings.output_dir
    earlier = configs_in(folder) if resumed else []
    if not earlier:
        experiment.save_config(os.path.join(folder, CONFIG))
        return
    try:
        with open(earlier[0], encoding="utf-8") as file:
            changed = bool(changed_keys(file.read(), experiment.config_text()))
    except (OSError, UnicodeDecodeError, ConfigError):
        changed = True  # a damaged one stays for whoever wants to look at it
    if changed:
        experiment.save_config(os.path.join(folder, "config.%d.yaml" % (len(earlier) + 1)))
