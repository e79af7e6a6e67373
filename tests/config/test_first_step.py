"""Every config takes a training step and an inference step on the CPU, and its twins do the same to the bit.

By default the quick configs, one full-size config of each of detectron2's models and one with deformable convolutions; ``make test-configs`` (ALL_CONFIGS=1) runs every config. Of those named alike but for their schedule, the
shortest is run.
"""

import os
import re
from fnmatch import fnmatch

import pytest
import torch
import twins
from detectron2.config import instantiate
from detectron2.modeling import build_model

_ONE_OF_EACH = (
    os.path.join("configs", "coco", "*_R_50_FPN_1x"),
    os.path.join("projects", "DynamicRCNN", "configs", "*_R_101_DCNv2_*"),
)
_STEMS = twins.config_stems()


def _is_quick(stem):
    return "quick" in stem or "_R_18_" in stem


def _shortest(stem):
    """The config with the shortest schedule among those named alike."""
    short = re.sub(r"_[23]x(_multi_scale)?$", "_1x", stem)
    return short if short in _STEMS else stem


def _stems():
    stems = [stem for stem in _STEMS if _shortest(stem) == stem]
    if os.environ.get("ALL_CONFIGS"):
        return stems
    return [s for s in stems if _is_quick(s) or any(fnmatch(s, pattern) for pattern in _ONE_OF_EACH)]


@pytest.mark.parametrize("stem", _stems())
def test_training_and_inference_step(stem):
    cfg, lazy = twins.load_both(stem)
    not_run = [other for other in _STEMS if other != stem == _shortest(other)]
    assert [other for other in not_run if not twins.are_one_model((cfg, lazy), twins.load_both(other))] == []
    yaml_model, lazy_model = twins.build_both(cfg, lazy)
    twins.calm(yaml_model)
    lazy_model.load_state_dict(yaml_model.state_dict())
    batch = twins.inputs(cfg)

    yaml_losses = twins.training_losses(yaml_model, batch)
    lazy_losses = twins.training_losses(lazy_model, batch)
    assert {k: v.item() for k, v in yaml_losses.items()} == {k: v.item() for k, v in lazy_losses.items()}
    assert all(torch.isfinite(loss) for loss in lazy_losses.values())

    optimizer = twins.optimizers(cfg, lazy, yaml_model, lazy_model)[1]
    sum(lazy_losses.values()).backward()
    without_gradient = [n for n, p in lazy_model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without_gradient
    del yaml_losses, lazy_losses

    yaml_found, lazy_found = (twins.detections(model, batch) for model in (yaml_model, lazy_model))
    assert list(yaml_found) == list(lazy_found)
    assert len(next(iter(yaml_found.values()))) > 0
    assert all(torch.equal(yaml_found[name], lazy_found[name]) for name in yaml_found)
    before = {name: p.detach().clone() for name, p in list(lazy_model.named_parameters())[-4:]}
    optimizer.step()
    assert all(torch.isfinite(p).all() for p in lazy_model.parameters())
    assert any(not torch.equal(before[n], p) for n, p in lazy_model.named_parameters() if n in before)


@pytest.mark.parametrize("model", ["faster_rcnn", "mask_rcnn", "retinanet", "fcos", "rpn", "fast_rcnn"])
def test_twins_start_from_the_same_weights(model):
    """From the same seed, so that whole runs are equal. (A cascade's heads are built in another order.)"""
    cfg, lazy = twins.load_both(f"configs/quick/{model}_R_18_FPN")
    cfg.MODEL.DEVICE = "cpu"
    torch.manual_seed(3)
    expected = build_model(cfg).state_dict()
    torch.manual_seed(3)
    weights = instantiate(lazy.model).state_dict()
    assert all(torch.equal(expected[name], weights[name]) for name in expected)


def test_lazy_optimizer_clips_as_the_yaml_one():
    """Quick configs clip the gradient of every parameter to norm 1: both optimizers take the same step."""
    cfg, lazy = twins.load_both("configs/quick/rpn_R_18_FPN")
    models = twins.build_both(cfg, lazy)
    models[1].load_state_dict(models[0].state_dict())
    optimizers = twins.optimizers(cfg, lazy, *models)
    for model, optimizer in zip(models, optimizers):
        for parameter in model.parameters():
            generator = torch.Generator().manual_seed(parameter.numel())
            parameter.grad = 3 * torch.randn(parameter.shape, generator=generator)
        optimizer.step()
        norms = [p.grad.norm() for p in model.parameters()]
        assert max(norms) <= 1 + 1e-4
    for (name, ours), (_, theirs) in zip(models[1].named_parameters(), models[0].named_parameters()):
        assert torch.equal(ours, theirs), name


def test_train_loader_is_built_from_the_lazy_node():
    """The node takes exactly the arguments of the loader (its data set is put in place of the registered one)."""
    lazy = twins.load_both("configs/quick/faster_rcnn_R_18_FPN")[1]
    node = lazy.dataloader.train
    images = [{"file_name": str(i), "image_id": i, "width": 4, "height": 3} for i in range(8)]
    node.dataset = images
    node.mapper = _name
    batch = next(instantiate(node).iter_from(0))
    assert len(batch) == node.total_batch_size == 4
    assert set(batch) <= {str(i) for i in range(8)}


def _name(image):
    return image["file_name"]
