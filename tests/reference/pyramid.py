"""The balanced feature pyramid and its blocks, one pixel at a time, in float64 lists and loops."""

import math

import numpy as np


def adaptive_max_pool(x, size):
    """(C, H, W) array -> (C, H', W'): the maximum over rows floor(iH/H')..ceil((i+1)H/H') and the same columns."""
    (c, h, w), (oh, ow) = x.shape, size
    out = np.empty((c, oh, ow))
    for i in range(oh):
        for j in range(ow):
            rows = slice(math.floor(i * h / oh), math.ceil((i + 1) * h / oh))
            columns = slice(math.floor(j * w / ow), math.ceil((j + 1) * w / ow))
            out[:, i, j] = x[:, rows, columns].max(axis=(1, 2))
    return out


def nearest(x, size):
    """(C, H, W) array -> (C, H', W'): the pixel floor(iH/H'), floor(jW/W')."""
    (_, h, w), (oh, ow) = x.shape, size
    return np.stack([np.stack([x[:, i * h // oh, j * w // ow] for j in range(ow)], -1) for i in range(oh)], -2)


def non_local(x, theta, phi, g, out, scale=1.0):
    """(C, H, W) array, weights (C', C) and biases (C',): ``x + out(softmax(theta phi^T * scale) g)``."""
    positions = x.reshape(len(x), -1).T
    queries, keys, values = (positions @ weight.T + bias for weight, bias in (theta, phi, g))
    gathered = np.zeros_like(values)
    for p, query in enumerate(queries):
        weights = [math.exp(scale * float(query @ key)) for key in keys]
        for weight, value in zip(weights, values):
            gathered[p] += weight / sum(weights) * value
    return x + (gathered @ out[0].T + out[1]).T.reshape(x.shape)


def balanced(levels, refine_level, refine=lambda x: x):
    """List of (C, H, W) arrays, fine to coarse -> the list with the refined average of all added to each."""
    size = levels[refine_level].shape[1:]
    resized = [adaptive_max_pool(x, size) if i < refine_level else nearest(x, size) for i, x in enumerate(levels)]
    mean = refine(sum(resized) / len(resized))
    back = [
        nearest(mean, x.shape[1:]) if i < refine_level else adaptive_max_pool(mean, x.shape[1:])
        for i, x in enumerate(levels)
    ]
    return [x + y for x, y in zip(levels, back)]


def global_context(x, attend, squeeze, norm, expand, epsilon=1e-5):
    """(C, H, W) array; attend, squeeze, norm, expand: (weight, bias). The global context block of GC-Net."""
    positions = x.reshape(len(x), -1).T
    weights = [math.exp(float(attend[0][0] @ position + attend[1][0])) for position in positions]
    context = sum(weight / sum(weights) * position for weight, position in zip(weights, positions))
    hidden = squeeze[0] @ context + squeeze[1]
    hidden = (hidden - hidden.mean()) / math.sqrt(hidden.var() + epsilon) * norm[0] + norm[1]
    return x + (expand[0] @ np.maximum(hidden, 0) + expand[1])[:, None, None]
