"""Polygon to mask and mask to polygons, exactly, in NumPy.

A pixel (row y, column x) covers the square from (x, y) to (x + 1, y + 1) and belongs to a polygon if its centre does.
Polygons that are traced from a mask run along pixel edges, so they describe the mask without any loss.
"""

import numpy as np

from .outlines import SUBPIXELS

__all__ = ["fill", "trace", "box_of"]

# Directions of a boundary walk in the order right, down, left, up: +1 is a right turn on the screen.
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def fill(vertices):
    """Mask of a closed polygon (even-odd rule) on the pixel grid just large enough for it.

    Args:
        vertices: integers (V, 2), x and y in units of ``1 / SUBPIXELS`` pixel.
    Returns:
        ((x, y) of the grid's first pixel, boolean mask (H, W)).
    """
    low = vertices.min(0) // SUBPIXELS
    width, height = -(-vertices.max(0) // SUBPIXELS) - low
    width, height = max(int(width), 1), max(int(height), 1)
    start = vertices - low * SUBPIXELS
    end = np.roll(start, -1, axis=0)
    centres = np.arange(height) * SUBPIXELS + SUBPIXELS // 2
    crossed = (start[:, None, 1] <= centres) != (end[:, None, 1] <= centres)  # (V, H)
    edge, row = np.nonzero(crossed)
    (x0, y0), (x1, y1) = start[edge].T, end[edge].T
    x = x0 + (centres[row] - y0) * (x1 - x0) / (y1 - y0)
    column = np.ceil((x - SUBPIXELS // 2) / SUBPIXELS).astype(np.int64).clip(0, width)
    crossings = np.bincount(row * (width + 1) + column, minlength=height * (width + 1)).reshape(height, width + 1)
    return (int(low[0]), int(low[1])), np.cumsum(crossings[:, :width], axis=1) % 2 == 1


def box_of(mask):
    """The box ``[x, y, width, height]`` around a mask's true pixels, COCO's convention; the mask must have some."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(columns[0]), int(rows[0])
    return [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]


def trace(mask):
    """Polygons of a mask: a list of ``[x1, y1, x2, y2, ...]`` of integers whose union is exactly the mask.

    COCO's polygons know no holes, so a mask with holes is first cut in bands of rows, one cut at each hole's top.
    An empty mask gives an empty list.
    """
    if not mask.any():
        return []
    x, y, width, height = box_of(mask)
    polygons = _trace(mask[y:y + height, x:x + width])
    return [[value + (y if k % 2 else x) for k, value in enumerate(polygon)] for polygon in polygons]


def _trace(mask):
    loops = _loops(mask)
    cuts = sorted({min(loop[1::2]) for loop in loops if _signed_area(loop) < 0})
    if not cuts:
        return loops
    polygons = []
    for top, bottom in zip([0] + cuts, cuts + [mask.shape[0]]):
        for loop in _loops(mask[top:bottom]):
            loop[1::2] = [y + top for y in loop[1::2]]
            polygons.append(loop)
    return polygons


def _signed_area(loop):
    x, y = np.array(loop[0::2]), np.array(loop[1::2])
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2


def _boundary_edges(mask):
    """Unit edges with the mask on their right: (4, H + 1, W + 1) bool, [d, y, x]: one leaves (x, y) in direction d."""
    height, width = mask.shape
    padded = np.zeros((height + 2, width + 2), dtype=bool)
    padded[1:-1, 1:-1] = mask
    above, below = padded[:-1, 1:], padded[1:, 1:]  # right of the vertex, above and below it
    above_left, below_left = padded[:-1, :-1], padded[1:, :-1]
    return np.stack([below & ~above, below_left & ~below, above_left & ~below_left, above & ~above_left])


def _loops(mask):
    """Closed boundary walks of a mask, corners only; clockwise around pixels (area > 0), the other way around holes."""
    edges = _boundary_edges(mask)
    _, rows, columns = edges.shape
    direction, y, x = (a.tolist() for a in np.nonzero(edges))
    open_edges = {(d * rows + v) * columns + u: None for d, v, u in zip(direction, y, x)}
    loops = []
    while open_edges:
        loops.append(_walk(open_edges, rows, columns))
    return loops


def _walk(open_edges, rows, columns):
    """One loop, whose edges are taken out of ``open_edges`` (keys: flat index of [direction, y, x])."""
    first = key = next(iter(open_edges))
    corners, plane = [], rows * columns
    direction, vertex = divmod(first, plane)
    while True:
        del open_edges[key]
        dx, dy = _STEPS[direction]
        vertex += dy * columns + dx
        for turn in (1, 0, 3):  # at a point where two pixels touch by their corners, stay with the same pixel
            key = (direction + turn) % 4 * plane + vertex
            if key in open_edges or key == first:
                break
        if turn != 0:
            corners += [vertex % columns, vertex // columns]
        if key == first:
            return corners
        direction = key // plane
