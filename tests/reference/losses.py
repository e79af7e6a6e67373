"""Box losses of one residual, straight from the formulas."""

import math


def smooth_l1(residual, beta):
    x = abs(residual)
    return 0.5 * x * x / beta if x < beta else x - 0.5 * beta


def balanced_l1(residual, alpha, gamma):
    """Libra R-CNN eq. 9, with its constant C from continuity at 1 (beta is 1 in the paper)."""
    x, b = abs(residual), math.exp(gamma / alpha) - 1

    def inlier(x):
        return alpha / b * (b * x + 1) * math.log(b * x + 1) - alpha * x

    return inlier(x) if x < 1 else gamma * x + inlier(1.0) - gamma


def balanced_l1_gradient(residual, alpha, gamma):
    """Libra R-CNN eq. 7 and 8: the gradient that the loss is made from."""
    x, b = abs(residual), math.exp(gamma / alpha) - 1
    size = alpha * math.log(b * x + 1) if x < 1 else gamma
    return math.copysign(size, residual)
