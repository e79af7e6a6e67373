"""Pools of jitters whose IoU with the unjittered box is spread evenly over an interval; see ``iou_uniform.py``."""

import functools

import torch

__all__ = ["INTERVALS", "jitter_corners", "jitter_pool", "jitter_iou", "released_range"]

INTERVALS = ((0.5, 0.6), (0.6, 0.7), (0.7, 0.8), (0.8, 1.0))
"""The paper's IoU intervals (Eq. 1)."""

_RELEASED_RANGES = {
    0.5: (0.75, 0.5, 2.0),
    0.6: (0.5, 0.6, 1.6),
    0.7: (0.3, 0.7, 1.4),
    0.8: (0.125, 0.8, 1.25),
    0.9: (0.125, 0.8, 1.25),
}

_VARIANTS = 8  # mirrored in x, mirrored in y, with box and ground truth exchanged

_DRAWS, _ROUNDS = 1 << 16, 32  # jitters drawn at once, and how often: a fraction of a second, whatever the interval


def released_range(low):
    """The released code's jitters for an interval that begins at ``low``: largest shift (in box sides), smallest and
    largest scale. Below 0.5, where it has none, a wider range."""
    if low < 0.5 - 1e-6:
        return 1.0, 0.4, 2.5
    return _RELEASED_RANGES[max(key for key in _RELEASED_RANGES if key <= low + 1e-6)]


def jitter_iou(jitters):
    """IoU of a box jittered by (dx, dy, sw, sh), in the last dimension, with the box itself."""
    shift, scale = jitters[..., :2], jitters[..., 2:]
    overlap = torch.minimum(shift + scale / 2, scale.new_tensor(0.5)) - torch.maximum(
        shift - scale / 2, scale.new_tensor(-0.5)
    )
    inter = overlap.clamp(min=0).prod(dim=-1)
    return inter / (1 + scale.prod(dim=-1) - inter)


def jitter_corners(jitters):
    """Corners (4, ...) of a box jittered by (dx, dy, sw, sh), (4, ...): from its first corner, in units of its size."""
    shift, scale = jitters[:2] + 0.5, jitters[2:] / 2
    return torch.cat([shift - scale, shift + scale])


@functools.lru_cache(maxsize=None)
def jitter_pool(interval, size=4096):
    """Jitters (size, 4), float32, whose IoUs lie evenly inside ``interval``; the same in every process, on the CPU.

    Jitters are drawn by rejection from ``released_range``, ordered by their IoU, and moved a little along the ray to the
    unjittered box until the IoUs are evenly spaced. Where two million draws hold too few of the interval (it is narrow,
    or close to 0 or 1), the nearest ones in IoU make up for the rest. Each is there in eight variants of the same IoU,
    so that every direction, larger and smaller are equally frequent.
    """
    low, high = interval
    base = size // _VARIANTS
    jitters = _rejected(low, high, base)
    jitters = jitters[jitter_iou(jitters).argsort()]
    target = low + (high - low) * (torch.arange(base, dtype=torch.float64, device="cpu") + 0.5) / base
    return _variants(_move_to(jitters, target)).float()


def _rejected(low, high, num):
    """``num`` jitters (num, 4) with IoU inside the interval, uniform in ``released_range``; the rest the nearest ones."""
    generator = torch.Generator("cpu").manual_seed(0)
    limit, smallest, largest = released_range(low)
    found = nearest = torch.zeros(0, 4, dtype=torch.float64, device="cpu")
    for _ in range(_ROUNDS):
        draw = torch.rand(_DRAWS, 4, generator=generator, dtype=torch.float64, device="cpu")
        shift = (2 * draw[:, :2] - 1) * limit
        jitters = torch.cat([shift, smallest + (largest - smallest) * draw[:, 2:]], dim=1)
        iou = jitter_iou(jitters)
        inside = (iou > low) & (iou < high)
        found = torch.cat([found, jitters[inside]])
        if len(found) >= num:
            return found[:num]
        nearest = torch.cat([nearest, jitters[~inside]])
        iou = jitter_iou(nearest)
        nearest = nearest[torch.maximum(low - iou, iou - high).topk(num, largest=False).indices]
    return torch.cat([found, nearest])[:num]


def _move_to(jitters, target):
    """Each jitter moved along the ray through the unjittered box until its IoU is ``target``, by bisection."""
    near, far = torch.zeros_like(target), torch.full_like(target, 4.0)
    for _ in range(60):
        middle = (near + far) / 2
        above = jitter_iou(_along_ray(jitters, middle)) > target
        near, far = torch.where(above, middle, near), torch.where(above, far, middle)
    return _along_ray(jitters, near)


def _along_ray(jitters, t):
    """Shift t (dx, dy) and scale (sw, sh) ** t: the unjittered box at t = 0, the jitter itself at t = 1."""
    return torch.cat([jitters[:, :2] * t[:, None], jitters[:, 2:] ** t[:, None]], dim=1)


def _variants(jitters):
    """The eight variants (8 N, 4) of jitters (N, 4)."""
    shift, scale = jitters[:, :2], jitters[:, 2:]
    exchanged = torch.cat([-shift / scale, 1 / scale], dim=1)
    both = torch.cat([jitters, exchanged])
    signs = [(1, 1, 1, 1), (-1, 1, 1, 1), (1, -1, 1, 1), (-1, -1, 1, 1)]
    return torch.cat([both * both.new_tensor(sign) for sign in signs])
