"""Where modules and names of this package went, for a user's config or component that still has the old path."""

from __future__ import annotations

import re
import traceback

from .errors import ConfigError

__all__ = ["MOVED", "new_path", "place_of_import", "refuse_moved"]

_NEW = {
    "analysis.candidates": "analysis.scored_boxes",
    "analysis.figures": "analysis.panels",
    "analysis.gradient_norms": "recording.gradient_norms",
    "analysis.imbalance_counts": "recording.counts",
    "analysis.imbalance_file": "recording.file",
    "analysis.inspect": "analysis.training_samples",
    "analysis.inspect.load_experiment": "engine.open.open_experiment",
    "analysis.plots": "analysis.imbalance_figures",
    "analysis.recordable": "engine.experiment.Experiment",
    "analysis.recorder": "recording.recorder",
    "analysis.recording": "recording.hook",
    "analysis.report.figures": "analysis.report.page_figures",
    "analysis.sample_gradients": "recording.sample_gradients",
    "analysis.sample_plots": "analysis.sample_figures",
    "analysis.stages": "analysis.ap_by_stage",
    "config.check": "config.check_yacs",
    "config.check.annealing_settings": "engine.from_yacs.annealing_settings",
    "config.compiled_ops": "config.refusals",
    "config.ignored": "config.refusals",
    "config.lazy_regions": "config.refusals",
    "config.spec": "modeling.spec",
    "config.suggestions": "utils.errors",
    "config.values": "utils.values",
    "data.builtin.datasets_root": "data.roots.datasets_root",
    "data.builtin.generated_folder": "data.roots.generated_folder",
    "data.checks": "data.check_dataset",
    "data.proposals": "data.proposal_files",
    "data.report": "data.problems",
    "data.report.DatasetError": "utils.errors.DataError",
    "engine.assemble": "engine.build",
    "engine.atomic": "utils.atomic",
    "engine.checkpoint.UnreadableCheckpointError": "engine.checkpoint_files.UnreadableCheckpointError",
    "engine.checkpoint.checkpoints_in": "engine.checkpoint_files.checkpoints_in",
    "engine.checkpoint.read_checkpoint": "engine.checkpoint_files.read_checkpoint",
    "engine.cli": "train",
    "engine.distributed.reduce_sum": "utils.reductions.reduce_sum",
    "engine.results": "engine.history",
    "engine.safe_load": "utils.safe_load",
    "engine.setup": "engine.start",
    "engine.setup.saved_seed": "engine.open.saved_seed",
    "engine.step_losses.NonFiniteLossError": "engine.nonfinite.NonFiniteLossError",
    "engine.weights_fit.CheckpointError": "utils.errors.CheckpointError",
    "engine.writers.read_json_lines": "utils.json_lines.read_json_lines",
    "engine.writers.read_metrics": "utils.json_lines.read_metrics",
    "evaluation.proposals": "evaluation.proposal_recall",
    "evaluation.report": "evaluation.write_results",
    "evaluation.results": "evaluation.detections",
    "ignore_regions": "modeling.ignore_regions",
    "modeling.box_losses.check_range": "modeling.arguments.check_range",
    "modeling.box_predictor.build_box_loss": "modeling.box_losses.build.build_box_loss",
    "modeling.dense_box_loss": "modeling.dense_losses",
    "modeling.dynamic": "modeling.box_losses.dynamic_smooth_l1",
    "modeling.dynamic_smooth_l1": "modeling.box_losses.dynamic_smooth_l1",
    "modeling.dynamic_statistics.gather_over_processes": "utils.reductions.gather_over_processes",
    "modeling.iou_candidates": "modeling.jittered_boxes",
    "modeling.roi_heads.checks": "modeling.roi_heads.check_axes",
    "solver": "engine.optimizer",
    "tables.report": "tables.results",
}
MOVED = {f"d2_balanced.{old}": f"d2_balanced.{new}" for old, new in _NEW.items()}
"""``{old dotted path: new one}`` of modules, and of what moved on its own."""


def new_path(path: str) -> str:
    """The dotted path that ``path`` has today; an empty string if neither it nor its module was moved."""
    parts = path.split(".")
    for end in range(len(parts), 1, -1):
        moved = MOVED.get(".".join(parts[:end]))
        if moved:
            return ".".join([moved, *parts[end:]])
    return ""


def refuse_moved(error: ImportError) -> None:
    """Raise ``ConfigError``, with place and new path, if ``error`` comes from an import of something that was moved."""
    name = re.match(r"cannot import name '(\w+)'", str(error))
    old = ".".join(filter(None, [error.name, name and name.group(1)]))
    if new_path(old):
        raise ConfigError(f"{place_of_import(error)}{old} was moved: it is {new_path(old)} now.") from error


def place_of_import(error: Exception) -> str:
    """``FILE, line N: `` of the innermost import statement."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if re.match(r"(from|import)\b", frame.line or ""):
            return f"{frame.filename}, line {frame.lineno}: "
    return ""
