"""GRoIE number by number: the convolution before the sum over levels, and attention by relative position after it."""

import math


def convolve(image, weight, bias):
    """ReLU of the zero-padded convolution; ``image[c][y][x]``, ``weight[o][c][i][j]``, ``bias[o]``."""
    height, width, size = len(image[0]), len(image[0][0]), len(weight[0][0])
    half = size // 2
    result = []
    for kernels, offset in zip(weight, bias):
        plane = [[offset] * width for _ in range(height)]
        for y in range(height):
            for x in range(width):
                for channel, kernel in zip(image, kernels):
                    for i in range(size):
                        for j in range(size):
                            v, u = y + i - half, x + j - half
                            if 0 <= v < height and 0 <= u < width:
                                plane[y][x] += channel[v][u] * kernel[i][j]
                plane[y][x] = max(plane[y][x], 0.0)
        result.append(plane)
    return result


def embedding(distance, channels):
    """Sines, then cosines, of ``distance`` at ``channels / 2`` frequencies from 1 down towards 1/1000."""
    angles = [distance / 1000 ** (i / (channels // 2)) for i in range(channels // 2)]
    return [math.sin(a) for a in angles] + [math.cos(a) for a in angles]


def times(matrix, vector):
    return [sum(a * b for a, b in zip(row, vector)) for row in matrix]


def position_attention(image, query, value, rows, columns, heads, stride):
    """What every place gathers, before the last convolution: ``[head and channel][y][x]``; the others are matrices."""
    height, width, half = len(image[0]), len(image[0][0]), len(image) // 2
    depth = len(query) // heads
    keys = [(v, u) for v in range(0, height, stride) for u in range(0, width, stride)]
    at = lambda y, x: [plane[y][x] for plane in image]  # noqa: E731
    gathered = [[[0.0] * width for _ in range(height)] for _ in query]
    for y in range(height):
        for x in range(width):
            q = times(query, at(y, x))
            places = [
                [a + b for a, b in zip(times(rows, embedding(y - v, half)), times(columns, embedding(x - u, half)))]
                for v, u in keys
            ]
            for head in range(heads):
                own = range(head * depth, (head + 1) * depth)
                logits = [sum(q[c] * place[c] for c in own) / math.sqrt(2) for place in places]
                total = sum(math.exp(logit) for logit in logits)
                for logit, (v, u) in zip(logits, keys):
                    values = times(value, at(v, u))
                    for c in own:
                        gathered[c][y][x] += math.exp(logit) / total * values[c]
    return gathered
