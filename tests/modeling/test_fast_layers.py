"""Layers in bfloat16, channels last or with folded normalisation: the same detector, and float32 outside of the layers."""

import copy
from types import SimpleNamespace

import pytest
import torch
from detectron2.layers import Conv2d, get_norm
from detectron2.modeling import build_model
from tiny_runs import TINY, quick_config
from torch.overrides import TorchFunctionMode, resolve_name

from config import twins
from d2_balanced.config import load_yaml
from d2_balanced.engine.open import open_experiment
from d2_balanced.modeling.fast_layers import set_layers

KL = ["MODEL.BALANCED.BOX_LOSS.NAME", "KLLoss"]
FROZEN = ["MODEL.RESNETS.NORM", "FrozenBN"]
BALANCED = "MODEL.BALANCED."
IOU_BRANCH = [f"{BALANCED}IOU_BRANCH.NAME", "IoUBranch", f"{BALANCED}IOU_BRANCH.NUM_PER_INTERVAL", "2"]
MASKS = [f"{BALANCED}STAGES.NAME", "RecursiveStages", f"{BALANCED}MASKS.NAME", "InterleavedMasks"]
FLOW = [*MASKS, "MODEL.ROI_MASK_HEAD.NAME", "FlowMaskHead", f"{BALANCED}MASK_IOU_HEAD.NAME", "MaskIoUHead"]
BUCKETS = [f"{BALANCED}BOX_CODER.NAME", "Buckets", f"{BALANCED}BOX_LOSS.NAME", "BucketLoss"]
SIDES = [*BUCKETS, "MODEL.ROI_BOX_HEAD.NAME", "SideAwareHead", "MODEL.ROI_BOX_HEAD.NUM_CONV", "1"]
DETECTORS = {
    "faster": ("faster_rcnn", []),
    "variances": ("faster_rcnn", KL),
    "buckets of sides": ("faster_rcnn", SIDES),
    "branches": ("faster_rcnn", [f"{BALANCED}BRANCHES", "[{'POSITIVE_FRACTION': 0.5}]"]),
    "iou branch in a cascade": ("cascade_rcnn", IOU_BRANCH),
    "loop with masks and mask scoring": ("mask_rcnn", FLOW),
    "pooler with weights": ("faster_rcnn", [f"{BALANCED}BOX_POOLER.NAME", "GenericROIPooler"]),
    "retinanet": ("retinanet", []),
    "rpn": ("rpn", []),
}


def detector(name, overrides=()):
    config, settings = DETECTORS[name]
    cfg = load_yaml(quick_config(config), [*TINY, *settings, *overrides, "MODEL.DEVICE", "cpu"])
    torch.manual_seed(0)
    model = build_model(cfg)
    twins.calm(model)
    return model, twins.inputs(cfg)


class Bfloat16Outside(TorchFunctionMode):
    """Notes the functions that are called with bfloat16 outside of autocast."""

    def __init__(self):
        super().__init__()
        self.seen, self.inside = set(), 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        values = [*args, *(kwargs or {}).values()]
        values = [v for value in values for v in (value if isinstance(value, (list, tuple)) else [value])]
        if any(isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16 for value in values):
            if torch.is_autocast_cpu_enabled():
                self.inside += 1
            else:
                self.seen.add(resolve_name(func) or str(func))
        return func(*args, **(kwargs or {}))


def gradients(model, batch):
    """Losses and gradients of a training pass."""
    model.zero_grad()
    losses = twins.training_losses(model, batch)
    sum(losses.values()).backward()
    return losses, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", DETECTORS)
def test_only_the_layers_compute_in_bfloat16(name):
    model, batch = detector(name)
    keys = list(model.state_dict())
    plain_losses, plain = gradients(copy.deepcopy(model), batch)
    set_layers(model, precision="bfloat16")
    assert list(model.state_dict()) == keys and {p.dtype for p in model.parameters()} == {torch.float32}
    outside = Bfloat16Outside()
    with outside:
        losses = twins.training_losses(model, batch)
        twins.detections(model, batch)
    assert not outside.seen and outside.inside > 20
    assert {loss.dtype for loss in losses.values()} == {torch.float32} and losses.keys() == plain_losses.keys()
    found = gradients(model, batch)[1]
    assert found.keys() == plain.keys()
    assert all(g.dtype == torch.float32 and g.isfinite().all() for g in found.values())
    for loss in ("loss_rpn_cls", "loss_cls"):
        if loss in losses:
            assert losses[loss].item() == pytest.approx(plain_losses[loss].item(), rel=0.02)


def test_nothing_to_fold_is_said(caplog):
    set_layers(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1)), fold_frozen_norm=True)
    assert "FOLD_FROZEN_NORM changes nothing" in caplog.text


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("settings", [{"channels_last": True}, {"fold_frozen_norm": True}], ids=lambda s: next(iter(s)))
def test_other_layouts_are_the_same_detector_but_for_rounding(name, settings):
    model, batch = detector(name, FROZEN)
    changed = copy.deepcopy(model)
    set_layers(changed, **settings)
    for module in changed.modules():
        if settings.get("channels_last") and isinstance(module, torch.nn.Conv2d):
            assert module.weight.is_contiguous(memory_format=torch.channels_last)
    losses, expected = gradients(model, batch)
    found_losses, found = gradients(changed, batch)
    torch.testing.assert_close(found_losses, losses, rtol=1e-3, atol=1e-4)
    assert found.keys() == expected.keys()
    for key in (key for key in found if key.startswith("backbone")):
        assert (found[key] - expected[key]).norm() <= 0.01 * expected[key].norm() + 1e-4, key


def test_the_defaults_change_nothing():
    model, _ = detector("faster")
    kinds = [type(module) for module in model.modules()]
    set_layers(model)
    assert [type(module) for module in model.modules()] == kinds
    assert all(p.is_contiguous() for p in model.parameters())


def test_a_copy_computes_with_its_own_weights():
    model, batch = detector("faster")
    set_layers(model, precision="bfloat16", fold_frozen_norm=True)
    other = copy.deepcopy(model)
    before = twins.training_losses(other, batch)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert twins.training_losses(other, batch) == before


@pytest.mark.parametrize("bias, activation", [(False, None), (True, torch.nn.ReLU())])
def test_a_folded_convolution(bias, activation):
    torch.manual_seed(0)
    conv = Conv2d(3, 4, 3, padding=1, bias=bias, norm=get_norm("FrozenBN", 4), activation=activation)
    for buffer in (conv.norm.weight, conv.norm.bias, conv.norm.running_mean):
        buffer.normal_()
    conv.norm.running_var.uniform_(0.1, 2)
    folded = copy.deepcopy(conv)
    set_layers(torch.nn.Sequential(folded), fold_frozen_norm=True)
    x = torch.randn(2, 3, 5, 5)
    for each in (conv, folded):
        each(x).square().sum().backward()
    torch.testing.assert_close(folded(x), conv(x))
    torch.testing.assert_close(folded.weight.grad, conv.weight.grad)
    assert folded(x[:0]).shape == conv(x[:0]).shape


def test_what_it_refuses():
    model = torch.nn.Linear(1, 1)
    with pytest.raises(ValueError, match="precision must be one of float32, bfloat16, got 'float16'"):
        set_layers(model, precision="float16")
    elsewhere = SimpleNamespace(parameters=lambda: iter([SimpleNamespace(device=torch.device("mps"))]))
    with pytest.raises(ValueError, match="bfloat16 is for cpu and cuda, the model is on mps"):
        set_layers(elsewhere, precision="bfloat16")


def test_a_model_that_is_built_to_see_whether_it_can_be_takes_every_setting():
    """The tuner and the report build models without memory; both refused a run in bfloat16."""
    words = [*TINY, "MODEL.LAYERS.PRECISION", "bfloat16", "MODEL.LAYERS.CHANNELS_LAST", "True"]
    model = open_experiment(quick_config("faster_rcnn"), words).build_without_memory()
    assert next(model.parameters()).device.type == "meta"
