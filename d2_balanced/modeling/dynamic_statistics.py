"""What Dynamic R-CNN measures in every iteration, and the window in which it keeps it (section 4, algorithm 1).

    rows: the values of an image's proposals (N,), -inf where a proposal does not count     B: images of an iteration
    P: processes     C: iterations between two updates (``period``)
"""

from __future__ import annotations

import logging
from typing import Callable, List, NamedTuple, Optional, Tuple

import torch
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ..utils.numbers import require
from ..utils.reductions import gather_over_processes
from .awaited_hook import warn_without_end_iteration

__all__ = ["Scope", "SCOPES", "StatisticRecorder", "kth_largest"]

EXCLUDED = float("-inf")
NOTHING = float("nan")
EMPTY_IMAGES = ("skip_batch", "leave_out")
_LONGEST_PERIOD = 1_000_000  # its records take 8 MB for every process, in every checkpoint
_MAX_PASSES = 256  # far more than anyone accumulates; reached only where nobody ends the iterations

logger = logging.getLogger(__name__)


def kth_largest(rows: Tensor, k: int) -> Tensor:
    """(R, N) -> (R,): the ``k``-th largest of each row; the smallest if fewer than ``k`` count, NaN if none does."""
    if rows.shape[1] == 0:
        return rows.new_full((rows.shape[0],), NOTHING)
    largest = rows.topk(min(k, rows.shape[1])).values
    counting = largest.isfinite().sum(dim=1, keepdim=True)
    kth = largest.gather(1, (counting - 1).clamp(min=0))
    return torch.where(counting > 0, kth, NOTHING)[:, 0]


def of_batch(rows: Tensor, k: int) -> Tensor:
    """(B, N) -> (): the (k * B)-th largest of all rows together."""
    return kth_largest(rows.reshape(1, -1), k * rows.shape[0])[0]


def mean_of_images(rows: Tensor, k: int) -> Tensor:
    """(B, N) -> (): the mean over the images of each one's ``k``-th largest."""
    return kth_largest(rows, k).nanmean()


def upper_median(values: Tensor) -> Tensor:
    """Element ``n // 2`` of the n values that are not NaN, in ascending order; NaN if there is none."""
    ascending, n = _ascending(values)
    return ascending.gather(0, (n // 2).clamp(max=len(ascending) - 1))[0]


def middle_median(values: Tensor) -> Tensor:
    """The median of the values that are not NaN, the mean of the middle two where their number is even."""
    ascending, n = _ascending(values)
    middle = torch.cat([(n - 1).clamp(min=0) // 2, (n // 2).clamp(max=len(ascending) - 1)])
    return ascending.gather(0, middle).mean()


def _ascending(values: Tensor) -> Tuple[Tensor, Tensor]:
    ascending = values.flatten().sort().values  # NaN comes last
    return ascending, (~ascending.isnan()).sum().reshape(1)


class Scope(NamedTuple):
    """The rules of one implementation."""

    iou_statistic: Callable[[Tensor, int], Tensor]
    median: Callable[[Tensor], Tensor]
    sampled_positives: bool  # errors are taken from the sampled positives, not from all labeled proposals
    counts_batches: bool  # C counts the batches that recorded something, not the iterations


SCOPES = {
    "batch": Scope(of_batch, upper_median, sampled_positives=False, counts_batches=False),
    "image": Scope(mean_of_images, middle_median, sampled_positives=True, counts_batches=True),
}


class StatisticRecorder(nn.Module):
    """Gathers rows during an iteration; turns them into one statistic per process; keeps those since the last update.

    The forward passes of one iteration (gradient accumulation) are merged: their images are one batch. Everything that
    an update needs is in buffers, equal on all processes: ``records (2 C, P)``, NaN where a process recorded nothing,
    and ``count ()``, where the next one goes. An update is put off by C iterations where the batch of its iteration
    recorded nothing, and all that was recorded since the last one counts: the second half of ``records`` is for that,
    and what has no room where several are put off in a row is in ``older (n C, P)``, otherwise None.

    Args:
        owner: class name of the component, for error messages.
        period: iterations between two updates, C; at most a million.
        scope: "batch" or "image", see ``SCOPES``.
        empty_images: what an image without GT does to its batch: "skip_batch" (it records nothing, as in the authors'
            code) or "leave_out" (the other images are recorded).

    Raises:
        ValueError: for a setting out of range.
    """

    def __init__(self, owner: str, period: int, scope: str, empty_images: str):
        super().__init__()
        require(owner, "period", period, at_least=1, at_most=_LONGEST_PERIOD, integer=True)
        if scope not in SCOPES:
            raise ValueError(f"{owner}: scope must be one of {', '.join(SCOPES)}, got {scope!r}")
        if empty_images not in EMPTY_IMAGES:
            raise ValueError(f"{owner}: empty_images must be one of {', '.join(EMPTY_IMAGES)}, got {empty_images!r}")
        self.owner = owner
        self.period = period
        self.scope = SCOPES[scope]
        self.empty_images = empty_images
        self.passes: List[List[Optional[Tensor]]] = []
        self._awaited_hook = warn_without_end_iteration(owner)
        self._told_unseen = False
        self.register_buffer("records", torch.full((2 * period, comm.get_world_size()), NOTHING))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("older", None)
        # On the host: whether this process recorded in this window, whether an update was put off, whether it ends now.
        self._has_recorded = self._is_put_off = self._ends = False

    def since_update(self) -> Tensor:
        """Everything that was recorded since the last update (N, P), NaN where nothing was."""
        return self.records if self.older is None else torch.cat([self.older, self.records])

    def add_pass(self, images: List[Optional[Tensor]]) -> None:
        """Keep the rows of one forward pass until the iteration ends; ``None`` for an image without GT."""
        self._awaited_hook.check()
        if len(self.passes) >= _MAX_PASSES:
            raise RuntimeError(
                f"{self.owner} saw {len(self.passes)} forward passes, and end_iteration() was never called: without it "
                "nothing adapts. Train with d2_balanced's trainer, register d2_balanced.balanced_hooks(cfg) in yours "
                "(docs/LIBRARY.md), or call it after every optimizer step."
            )
        self.passes.append(images)

    def take_rows(self) -> Optional[Tensor]:
        """The iteration's rows (B, N), padded by -inf; None if there is nothing to record. Forgets them."""
        self._tell_unseen()
        images = [rows for images in self.passes for rows in images]
        self.passes = []
        with_gt = [rows for rows in images if rows is not None]
        if not with_gt or (self.empty_images == "skip_batch" and len(with_gt) < len(images)):
            return None
        return pad_sequence(with_gt, batch_first=True, padding_value=EXCLUDED)

    def _tell_unseen(self) -> None:
        """Warn, once, of an iteration in which no ROI heads have shown anything to the component."""
        if not (self.passes or self._told_unseen):
            self._told_unseen = True
            logger.warning(
                f"{self.owner} was shown no proposals in an iteration, and stays as it is: BalancedROIHeads show them, "
                "detectron2's own ROI heads do not (docs/LIBRARY.md)."
            )

    def record(self, statistic: Optional[Tensor], iteration: int) -> Tuple[Tensor, Tensor]:
        """Add this iteration's statistic (0-d; None if nothing was seen) of all processes to the window.

        Returns the mean of the processes' statistics (NaN if there is none), and whether an update is due (both 0-d).
        """
        number = self.records.new_full  # a Python number on the device, without waiting for it
        own = number((), NOTHING) if statistic is None else statistic
        own = torch.stack([own, number((), float(statistic is not None))])
        statistics, seen = gather_over_processes(own).unbind(1)
        if len(statistics) != self.records.shape[1]:  # the processes were started after this was built
            self.records = self.records.new_full((2 * self.period, len(statistics)), NOTHING)
        if iteration == 0:
            self._ends = True
            self.clear(torch.ones_like(self.count, dtype=torch.bool))
        seen = seen.sum() > 0
        here = torch.arange(len(self.records), device=self.count.device) == self.count % len(self.records)
        self.records.copy_(torch.where((here & seen)[:, None], statistics, self.records))
        self.count += seen
        if self.scope.counts_batches:
            return statistics.nanmean(), self.count >= self.period
        self._has_recorded |= statistic is not None
        at_end = (iteration + 1) % self.period == 0
        if at_end:  # once a period, processes tell one another on the host, so that the device need not be waited for
            recorded, has_recorded = zip(*comm.all_gather((statistic is not None, self._has_recorded)))
            self._ends = any(recorded)
            if any(has_recorded) and not self._ends:
                self._put_off()
        return statistics.nanmean(), seen & at_end

    def _put_off(self) -> None:
        """Keep the window, which is not empty, open for another period."""
        if self._is_put_off:
            full, rest = self.records.split(self.period)
            self.older = full.clone() if self.older is None else torch.cat([self.older, full])
            full.copy_(rest)
            rest.fill_(NOTHING)
        self._is_put_off = True
        self.count.fill_(self.period)

    def clear(self, due: Tensor) -> None:
        """Empty the window if ``due`` (0-d bool)."""
        self.records.masked_fill_(due, NOTHING)
        self.count.masked_fill_(due, 0)
        if self._ends:
            self.older = None
            self._has_recorded = self._is_put_off = self._ends = False

    restarting_buffers = ("records",)
    """May have another shape in a checkpoint, which then starts anew; a checkpointer may leave them out."""

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        saved = state_dict.get(prefix + "records")
        if saved is not None and saved.shape != self.records.shape:
            logger.warning(
                f"{prefix}records: the checkpoint has a window of {tuple(saved.shape)} (2 x period, processes), this "
                f"run one of {tuple(self.records.shape)}; it starts empty, and the value in force is kept."
            )
            saved = None
        if saved is None and prefix + "count" in state_dict:
            state_dict.pop(prefix + "older", None)
            state_dict[prefix + "records"] = torch.full_like(self.records, NOTHING)
            state_dict[prefix + "count"] = torch.zeros_like(self.count)
        older = state_dict.get(prefix + "older")
        self.older = None if older is None else older.to(self.records, copy=True)
        count = state_dict.get(prefix + "count", self.count)
        self._has_recorded, self._is_put_off = bool(count > 0), bool(count >= self.period)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
