"""SGD that clips: what is clipped, and what is refused."""

import pytest
import torch

from d2_balanced.engine.optimizer import clipped_sgd


def step(gradients, **kwargs):
    """The changes of zero parameters after one step with these gradients and a learning rate of 1."""
    parameters = [torch.nn.Parameter(torch.zeros(len(g))) for g in gradients]
    for parameter, gradient in zip(parameters, gradients):
        parameter.grad = torch.tensor(gradient)
    clipped_sgd(parameters, lr=1.0, **kwargs).step()
    return [(-p).tolist() for p in parameters]


def test_norm_of_each_parameter_is_clipped():
    steps = step([[3.0, 4.0], [0.3, 0.4]], clip_type="norm", clip_value=1.0)
    assert steps[0] == pytest.approx([0.6, 0.8], rel=1e-5)
    assert steps[1] == pytest.approx([0.3, 0.4])  # short enough; what the other parameter does is no matter


def test_values_are_clipped():
    assert step([[3.0, -4.0, 0.5]], clip_type="value", clip_value=1.0)[0] == [1.0, -1.0, 0.5]


def test_momentum_and_weight_decay_are_those_of_sgd():
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = clipped_sgd([parameter], lr=0.1, momentum=0.9, weight_decay=0.5, clip_value=1.0)
    for _ in range(2):
        parameter.grad = torch.tensor([0.0])
        optimizer.step()
    # velocity 0.5, weight 0.95; velocity 0.45 + 0.475
    assert parameter.item() == pytest.approx(0.95 - 0.1 * 0.925)


@pytest.mark.parametrize("wrong", [{"clip_type": "nrom"}, {"clip_value": 0.0}, {"clip_value": float("nan")}])
def test_wrong_settings_are_named(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"clipped_sgd: {name}"):
        step([[1.0]], **wrong)
