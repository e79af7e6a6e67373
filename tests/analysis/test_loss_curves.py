"""Box losses as curves (Dynamic R-CNN, figure 4): values and gradients against formulas, configs, runs, refusals."""

import json

import numpy as np
import pytest
import yaml
from reference.losses import balanced_l1
from tiny_runs import quick_config

from d2_balanced.analysis import loss_curves
from d2_balanced.config import ConfigError
from d2_balanced.engine.open import open_experiment
from d2_balanced.modeling.box_losses import BalancedL1, EIoU, KLLoss, SmoothL1

ERRORS = np.array([0.05, 0.4, 0.9, 1.5])
DYNAMIC = "DynamicRCNN/dynamic_quick"


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_smooth_l1_is_the_papers_equation_4(beta):
    loss, gradient = loss_curves.curve_of(SmoothL1(beta=beta), ERRORS)
    inside = ERRORS < beta
    np.testing.assert_allclose(loss, np.where(inside, 0.5 * ERRORS**2 / beta, ERRORS - 0.5 * beta), atol=1e-6)
    np.testing.assert_allclose(gradient, np.where(inside, ERRORS / beta, 1.0), atol=1e-6)


def test_another_loss_and_one_that_sees_more():
    loss, _ = loss_curves.curve_of(BalancedL1(), ERRORS)
    np.testing.assert_allclose(loss, [balanced_l1(x, 0.5, 1.5) for x in ERRORS], atol=1e-5)
    for other in (EIoU(), KLLoss()):
        with pytest.raises(ConfigError, match=f"{type(other).__name__} is no function of the error of one delta"):
            loss_curves.curve_of(other, ERRORS)


@pytest.mark.parametrize("config, expected", [
    ("LibraRCNN/libra_quick", BalancedL1),
    ("LibraRCNN/libra_quick.py", BalancedL1),
    ("IoUUniformRCNN/iou_uniform_quick", SmoothL1),
    (quick_config("retinanet"), SmoothL1),
])  # fmt: skip
def test_the_loss_of_a_config(config, expected):
    ((label, loss),) = loss_curves.losses_of(config).items()
    assert label == "" and type(loss) is expected
    if "iou_uniform" in config:
        assert loss.beta == 1.0


def test_the_betas_of_a_run(tmp_path):
    open_experiment(DYNAMIC).save_config(str(tmp_path / "config.yaml"))
    lines = [{"iteration": 20 * k, "dynamic_smooth_l1/beta": 1.0 - 0.1 * k, "total_loss": 1.0} for k in range(8)]
    (tmp_path / "metrics.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    losses = loss_curves.losses_of(str(tmp_path))
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())
    initial = saved["MODEL"]["BALANCED"]["BOX_LOSS"].get("INITIAL_BETA", 1.0)
    assert [loss.beta for loss in losses.values()] == pytest.approx([initial, 0.9, 0.7, 0.5, 0.3])
    assert list(losses)[-1] == "beta 0.3 at iteration 140"


@pytest.mark.parametrize("base, fragment, others", [
    ("quick/cascade_rcnn_R_18_FPN", "DynamicRCNN/dynamic_smooth_l1", "roi_heads.box_predictor.{}.box_loss"),
    (DYNAMIC, "RGA_PRM/prm", "roi_heads.box_predictor{}.box_loss"),
])  # fmt: skip
def test_of_several_betas_the_first_stages_main_branchs(base, fragment, others, tmp_path):
    """The log tells them apart by the paths of the losses (``engine/hooks.py``)."""
    experiment = open_experiment(base, fragments=[fragment])
    experiment.save_config(str(tmp_path / "config.yaml"))
    experiment.set_run(device="cpu")
    modules = dict(experiment.build_model().named_modules())
    names = [others.format(which) for which in ((0, 1, 2) if "cascade" in base else ("", "_branch1"))]
    own = {name: 0.5 - 0.1 * k for k, name in enumerate(names)}
    assert all(type(modules[name]).__name__ == "DynamicSmoothL1" for name in names)
    line = {"iteration": 20, "total_loss": 1.0, **{f"{name}/beta": beta for name, beta in reversed(own.items())}}
    (tmp_path / "metrics.json").write_text(json.dumps(line) + "\n" + json.dumps({**line, "iteration": 40}) + "\n")
    losses = loss_curves.losses_of(str(tmp_path))
    assert list(losses) == ["beta 1 at the start", "beta 0.5 at iteration 20", "beta 0.5 at iteration 40"]


def test_the_command_draws(tmp_path):
    output = tmp_path / "new" / "curves.png"
    assert len(loss_curves.main(["--output", str(output)])) == 5 and output.read_bytes().startswith(b"\x89PNG")
    labels = loss_curves.main(["Libra=LibraRCNN/libra_quick", quick_config("faster_rcnn"), "--output", str(output)])
    assert labels == ["Libra", "faster_rcnn_R_18_FPN.yaml"]
