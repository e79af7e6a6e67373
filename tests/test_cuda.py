"""On a GPU: a step of each kind of detector in every number format; the same losses as on the CPU. tools/gpu_check.sh runs it."""

import copy

import pytest
import torch
from detectron2.modeling import build_model
from tiny_runs import TINY, quick_config

from config import twins
from d2_balanced.config import load_yaml
from d2_balanced.engine.precision import MixedPrecision
from d2_balanced.engine.rng import ReseedEveryStep
from d2_balanced.engine.trainer import BalancedTrainer
from d2_balanced.modeling.fast_layers import set_layers

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

FORMATS = {
    "float32": {},
    "channels last, folded": {"channels_last": True, "fold_frozen_norm": True},
    "bfloat16": {"precision": "bfloat16", "channels_last": True},
}


@pytest.fixture(scope="module", params=["faster_rcnn", "cascade_mask_rcnn", "retinanet"])
def detector(request):
    cfg = load_yaml(quick_config(request.param), [*TINY, "MODEL.RESNETS.NORM", "FrozenBN", "MODEL.DEVICE", "cpu"])
    torch.manual_seed(0)
    model = build_model(cfg)
    twins.calm(model)
    return model, twins.inputs(cfg)


@pytest.mark.parametrize("name", FORMATS)
def test_losses_on_cuda_are_those_of_the_cpu(detector, name):
    model, batch = detector
    expected = twins.training_losses(copy.deepcopy(model), batch)
    moved = copy.deepcopy(model).cuda()
    set_layers(moved, **FORMATS[name])
    losses = twins.training_losses(moved, batch)
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in moved.parameters() if p.grad is not None)
    for key in ["loss_rpn_cls"] if "loss_rpn_cls" in losses else losses:  # what is sampled is another on a GPU
        assert losses[key].item() == pytest.approx(expected[key].item(), rel=0.2), key
    twins.detections(moved, batch)


def test_mixed_precision_on_cuda(detector):
    model, batch = copy.deepcopy(detector[0]).cuda(), detector[1]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    trainer = BalancedTrainer(model, [batch] * 3, optimizer, precision=MixedPrecision("cuda"))
    trainer.register_hooks([ReseedEveryStep(0)])
    trainer.train(0, 3)
    assert all(p.isfinite().all() for p in model.parameters()) and trainer.precision.state_dict()["scaler"]["scale"] > 0
