"""Classification losses of one RoI, or of a few, straight from the formulas: Python numbers, one class after another.

Logits have a column for every class; with a softmax the last one is the background, label K.
"""

import math


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def softmax(logits):
    largest = max(logits)
    powers = [math.exp(z - largest) for z in logits]
    return [power / sum(powers) for power in powers]


def binary_cross_entropy(p, target):
    return -sum(t * math.log(q) for t, q in ((target, p), (1 - target, 1 - p)) if t > 0)


def cross_entropy(logits, label):
    return -math.log(softmax(logits)[label])


def sigmoid_cross_entropy(logits, label):
    return sum(binary_cross_entropy(sigmoid(z), float(k == label)) for k, z in enumerate(logits))


def focal(logits, label, gamma, alpha):
    """Lin et al. 2017, eq. 5, of a softmax; alpha below 0: none."""
    p = softmax(logits)[label]
    factor = 1 if alpha < 0 else alpha if label < len(logits) - 1 else 1 - alpha
    return -factor * (1 - p) ** gamma * math.log(p)


def sigmoid_focal(logits, label, gamma, alpha):
    total = 0.0
    for k, z in enumerate(logits):
        p = sigmoid(z) if k == label else 1 - sigmoid(z)
        factor = 1 if alpha < 0 else alpha if k == label else 1 - alpha
        total -= factor * (1 - p) ** gamma * math.log(p)
    return total


def class_balanced_weights(counts, beta):
    """Cui et al. 2019: one over the effective number (their eq. 2), scaled to a sum of as many as there are classes."""
    weights = [(1 - beta) / (1 - beta**n) if beta < 1 else 1 / n for n in counts]
    return [w * len(counts) / sum(weights) for w in weights]


def seesaw(logits, label, counts, p, q):
    """Wang et al. 2021: the softmax whose other classes j are weighted by M_ij C_ij; the background takes no part."""
    probabilities, background = softmax(logits), len(logits) - 1
    total = math.exp(logits[label])
    for j, z in enumerate(logits):
        factor = 1.0
        if background not in (label, j) and j != label:
            own, other = max(counts[label], 1), max(counts[j], 1)
            factor = (other / own) ** p if own > other else 1.0
            if probabilities[j] > probabilities[label]:
                factor *= (probabilities[j] / probabilities[label]) ** q
        total += factor * math.exp(z) if j != label else 0.0
    return -math.log(math.exp(logits[label]) / total)


class EqualizationV2:
    """Tan et al. 2021, with its accumulated gradients: one RoI and one class after another."""

    def __init__(self, num_classes, gamma, mu, alpha):
        self.gamma, self.mu, self.alpha = gamma, mu, alpha
        self.positive, self.negative = [0.0] * num_classes, [0.0] * num_classes

    def weights(self, k):
        """(of positives, of negatives) of class k; of the column after the last class, 1."""
        if k == len(self.positive) or self.negative[k] == 0:
            return 1.0, 1.0
        r = sigmoid(self.gamma * (self.positive[k] / self.negative[k] - self.mu))
        return 1 + self.alpha * (1 - r), r

    def loss(self, logits, label):
        total = 0.0
        for k, z in enumerate(logits):
            total += self.weights(k)[k != label] * binary_cross_entropy(sigmoid(z), float(k == label))
        return total

    def learn(self, batch):
        """Add the weighted gradients of ``[(logits, label)]``."""
        positive, negative = list(self.positive), list(self.negative)
        for logits, label in batch:
            for k in range(len(positive)):
                gradient = self.weights(k)[k != label] * abs(sigmoid(logits[k]) - float(k == label))
                (positive if k == label else negative)[k] += gradient
        self.positive, self.negative = positive, negative


class GradientDensity:
    """Li et al. 2019: the unit regions, and the moving average of how many examples are in each."""

    def __init__(self, bins, momentum, divide_by="bins"):
        self.bins, self.momentum, self.divide_by = bins, momentum, divide_by
        self.average = [0.0] * bins

    def count(self, norms):
        counts = [0] * self.bins
        for g in norms:
            counts[min(int(g * self.bins), self.bins - 1)] += 1
        return counts

    def weights(self, norms):
        here = self.count(norms)
        mixed = [self.momentum * old + (1 - self.momentum) * new for old, new in zip(self.average, here)]
        regions = self.bins if self.divide_by == "bins" else sum(count > 0 for count in here)
        return [sum(mixed) / (regions * mixed[min(int(g * self.bins), self.bins - 1)]) for g in norms]

    def learn(self, norms):
        self.average = [
            self.momentum * old + (1 - self.momentum) * new for old, new in zip(self.average, self.count(norms))
        ]


def quality_focal(logits, label, iou, beta):
    """Li et al. 2020: the IoU is the target of the label's class, 0 that of all others."""
    total = 0.0
    for k, z in enumerate(logits):
        y, p = (iou if k == label else 0.0), sigmoid(z)
        total += abs(y - p) ** beta * binary_cross_entropy(p, y)
    return total


def varifocal(logits, label, iou, alpha, gamma):
    """Zhang et al. 2021, eq. 2."""
    total = 0.0
    for k, z in enumerate(logits):
        q, p = (iou if k == label else 0.0), sigmoid(z)
        total += q * binary_cross_entropy(p, q) if q > 0 else -alpha * p**gamma * math.log(1 - p)
    return total
