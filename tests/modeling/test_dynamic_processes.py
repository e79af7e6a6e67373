"""Dynamic R-CNN in several processes: all hold the values of the union of their records."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from paths import ROOT

import dynamic_processes
from d2_balanced.modeling import dynamic_statistics
from dynamic_streams import components, scalar_batches, view_of_batch
from reference import dynamic as reference

TESTS = os.path.join(ROOT, "tests")


def union_trajectory(streams, k_iou, k_error, period):
    """Threshold and beta in force: one record a process and iteration whose batch counts, all in one window."""
    ious, errors, used = [], [], [(0.4, 1.0)]
    for i, batches in enumerate(zip(*(scalar_batches(stream) for stream in streams))):
        threshold, beta = used[-1]
        counted = [batch for batch in batches if all(image is not None for image in batch)]
        ious += [reference.iou_statistic(batch, k_iou, "batch") for batch in counted]
        errors += [reference.error_statistic(batch, k_error, "batch", threshold) for batch in counted]
        if (i + 1) % period == 0 and counted:
            threshold, beta = max(sum(ious) / len(ious), 0.4), min(reference.upper_median(errors), 1.0)
            ious, errors = [], []
        used.append((threshold, beta))
    return used


def test_two_processes_hold_the_values_of_the_union_of_their_records(tmp_path):
    paths = os.pathsep.join([ROOT, TESTS])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*torchrun, os.path.join(TESTS, "dynamic_processes.py"), str(tmp_path)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr[-2000:]
    one, other = (torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in range(2))
    assert one["used"] == other["used"] and len(set(one["used"])) == 3
    for component in ("matcher", "loss"):
        for key, value in one[component].items():
            assert torch.equal(value.nan_to_num(-7), other[component][key].nan_to_num(-7)), key
    expected = union_trajectory(dynamic_processes.process_streams(), *dynamic_processes.SETTINGS)
    final = (float(one["matcher"]["threshold"]), float(one["loss"]["beta"]))
    np.testing.assert_allclose([*one["used"], final], expected, rtol=0, atol=1e-6)
    assert one["matcher"]["window.records"].shape == (6, 2)


def test_a_checkpoint_of_two_processes_resumes_in_one(monkeypatch, caplog):
    monkeypatch.setattr(dynamic_statistics.comm, "get_world_size", lambda: 2)
    matcher, _ = components(4, 3, 3)
    monkeypatch.undo()
    matcher.threshold.fill_(0.55)
    resumed, _ = components(4, 3, 3)
    resumed.load_state_dict(matcher.state_dict())
    assert resumed.threshold == matcher.threshold and "this run one of (6, 1)" in caplog.text


def test_processes_may_start_after_the_model_was_built(monkeypatch):
    matcher, _ = components(1, 1, 2)
    row = np.array([[0.8, 0, 0, 0]], np.float32)
    monkeypatch.setattr(
        dynamic_statistics, "gather_over_processes", lambda own: torch.stack([own, own.new_tensor([0.6, 1.0])])
    )
    for i in range(2):
        matcher.observe(view_of_batch([row], matcher))
        matcher.end_iteration(i)
    assert matcher.window.records.shape == (4, 2) and float(matcher.threshold) == pytest.approx(0.7)
