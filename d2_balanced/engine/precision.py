"""Number formats of the training step: full precision, or automatic mixed precision (``SOLVER.AMP.ENABLED``)."""

from __future__ import annotations

import contextlib

import torch

__all__ = ["FullPrecision", "MixedPrecision", "build_precision"]


class FullPrecision:
    """Everything in the parameters' own type. Also the interface that :class:`MixedPrecision` keeps."""

    def autocast(self):
        """Context of the forward pass."""
        return contextlib.nullcontext()

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of ``loss`` (0-d) to the parameters."""
        loss.backward()

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Make the gradients those of the loss itself, for whatever looks at them before the step."""

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """One optimizer step."""
        optimizer.step()

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None:
        pass


class MixedPrecision(FullPrecision):
    """Autocast: fp16 with loss scaling on CUDA; bfloat16, which needs no scaling, on the CPU.

    Args:
        device_type: "cuda" or "cpu".
    """

    DTYPES = {"cuda": torch.float16, "cpu": torch.bfloat16}

    def __init__(self, device_type: str):
        if device_type not in self.DTYPES:
            raise ValueError(f"MixedPrecision: device_type is one of {sorted(self.DTYPES)}, got {device_type!r}.")
        self.device_type = device_type
        self.scaler = _grad_scaler() if device_type == "cuda" else None

    def autocast(self):
        return torch.autocast(self.device_type, dtype=self.DTYPES[self.device_type])

    def backward(self, loss):
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def unscale(self, optimizer):
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)

    def step(self, optimizer):
        """One optimizer step; skipped where fp16 gradients overflowed (the scaler then lowers its scale)."""
        if self.scaler is None:
            optimizer.step()
        else:
            self.scaler.step(optimizer)
            self.scaler.update()

    def state_dict(self):
        return {} if self.scaler is None else {"scaler": self.scaler.state_dict()}

    def load_state_dict(self, state):
        if self.scaler is not None and "scaler" in state:
            self.scaler.load_state_dict(state["scaler"])


def _grad_scaler():
    if hasattr(torch.amp, "GradScaler"):  # torch 2.3 and later; the older name warns there
        return torch.amp.GradScaler("cuda")
    return torch.cuda.amp.GradScaler()


def build_precision(amp: bool, device: torch.device) -> FullPrecision:
    """The precision for ``SOLVER.AMP.ENABLED`` on ``device``."""
    return MixedPrecision(torch.device(device).type) if amp else FullPrecision()
