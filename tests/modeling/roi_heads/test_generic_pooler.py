"""GRoIE: every level is pooled, the same convolution goes before the sum, attention after it."""

import pytest
import torch
import roi_heads_tools as h
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from reference import groie
from torch import nn

from d2_balanced.modeling.roi_heads.generic_pooler import GenericROIPooler
from d2_balanced.modeling.roi_heads.position_attention import PositionAttention

SETTINGS = {"output_size": 5, "scales": (1 / 4, 1 / 8), "sampling_ratio": 2, "pooler_type": "ROIAlignV2"}
BOXES = [[4.0, 6.0, 60.0, 40.0], [0.0, 0.0, 9.0, 12.0], [50.0, 20.0, 120.0, 90.0]]
MASKS = {"MODEL__MASK_ON": True, "MODEL__BALANCED__MASK_POOLER": {"NAME": "GenericROIPooler", "ATTENTION": "non_local"}}
GROIE = {"MODEL__BALANCED__BOX_POOLER": {"NAME": "GenericROIPooler"}, **MASKS}


def pooler(seed=0, **settings):
    torch.manual_seed(seed)
    return GenericROIPooler(channels=8, **{**SETTINGS, **settings})


def test_the_sum_over_levels():
    ours, maps, boxes = pooler(attention="none"), list(h.features(1).values()), [Boxes(torch.tensor(BOXES))]
    single = [ROIPooler(**{**SETTINGS, "scales": (scale,)}) for scale in SETTINGS["scales"]]
    with torch.no_grad():
        nn.init.normal_(ours.before.bias)
        pooled = ours(maps, boxes)
    weight, bias = ours.before.weight.tolist(), ours.before.bias.tolist()
    for i, found in enumerate(pooled):
        levels = [level([x], boxes)[i].tolist() for level, x in zip(single, maps)]
        expected = sum(torch.tensor(groie.convolve(image, weight, bias)) for image in levels)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("heads, stride", [(2, 1), (3, 2)])
def test_attention_by_relative_position(heads, stride):
    torch.manual_seed(1)
    attention, x = PositionAttention(8, (3, 4), num_heads=heads, key_stride=stride), torch.randn(2, 8, 3, 4)
    assert torch.equal(attention(x), x), "it starts as the identity"
    nn.init.constant_(attention.gamma, 0.5)
    for layer in (attention.query, attention.rows, attention.columns):
        nn.init.normal_(layer.weight)  # so that the weights are far from uniform
    query, value = (conv.weight.flatten(1).tolist() for conv in (attention.query, attention.value))
    matrices = (query, value, attention.rows.weight.tolist(), attention.columns.weight.tolist())
    for image, found in zip(x, attention(x)):
        gathered = torch.tensor(groie.position_attention(image.tolist(), *matrices, heads, stride))
        torch.testing.assert_close(found, image + 0.5 * attention.out(gathered[None])[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["position", "non_local", "none"])
@pytest.mark.parametrize("counts", [(2, 0, 3), (0, 0), ()])
def test_shapes_and_gradients(attention, counts):
    maps = [x.requires_grad_() for x in h.features(len(counts)).values()]
    boxes = [Boxes(torch.tensor(BOXES)[:count]) for count in counts]
    ours = pooler(attention=attention)
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.1)
    pooled = ours(maps, boxes)
    assert pooled.shape == (sum(counts), 8, 5, 5)
    if not counts:
        return
    pooled.square().sum().backward()
    for x in maps:
        assert [bool(image.abs().sum() > 0) for image in x.grad] == [count > 0 for count in counts]
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.abs().sum() > 0) == (sum(counts) > 0), name


def test_a_box_is_pooled_from_every_level_whatever_its_size():
    ours, maps = pooler(attention="none"), h.features(1)
    for box in BOXES:
        whole = ours(list(maps.values()), [Boxes(torch.tensor([box]))])
        for level in maps:
            other = {**maps, level: maps[level] + 1}
            assert not torch.allclose(ours(list(other.values()), [Boxes(torch.tensor([box]))]), whole)


@pytest.mark.parametrize("stages", ["SingleStage", "CascadeStages", "RecursiveStages"])
@pytest.mark.parametrize("objects", [(4, 7), (0, 0)])
def test_trains_and_infers_in_the_heads(stages, objects):
    heads = h.build(h.tiny_cfg(**GROIE, MODEL__BALANCED__STAGES={"NAME": stages}))
    assert isinstance(heads.mask_pooler.after, type(pooler(attention="non_local").after))
    targets = h.targets(objects, masks=True)
    batch = h.features(2), h.proposals(targets), targets
    losses, gradients, *_ = h.train_step(heads, *batch)
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert {name for name, p in heads.named_parameters() if p.requires_grad} <= gradients.keys()
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
    assert all(len(found) > 0 and found.has("pred_masks") for found in h.detect(heads, *batch[:2]))


def test_a_checkpoint_of_other_poolers_loads_but_for_their_weights():
    plain, heads = h.build(h.tiny_cfg(MODEL__MASK_ON=True)), h.build(h.tiny_cfg(**GROIE))
    result = heads.load_state_dict(plain.state_dict(), strict=False)
    assert not result.unexpected_keys
    assert {key.split(".")[0] for key in result.missing_keys} == {"box_pooler", "mask_pooler"}
    assert not any("distances" in key for key in heads.state_dict()), "what is computed is not saved"
    again = h.build(h.tiny_cfg(**GROIE), seed=9)
    again.load_state_dict(heads.state_dict())
    feats, proposals = h.features(2), h.proposals(h.targets((4, 7)))
    for a, b in zip(h.detect(heads, feats, proposals), h.detect(again, feats, proposals)):
        assert torch.equal(a.scores, b.scores) and torch.equal(a.pred_masks, b.pred_masks)


@pytest.mark.parametrize("settings, message", [
    ({"kernel_size": 4}, "kernel_size must be odd and positive, got 4"),
    ({"attention": "channel"}, "attention must be one of position, non_local, none, got 'channel'"),
    ({"pooler_type": "ROIMax"}, "ROIMax"),
])  # fmt: skip
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        pooler(**settings)
    with pytest.raises(ValueError, match="key_stride must be 1 or more, got 0"):
        PositionAttention(8, (2, 2), key_stride=0)
    with pytest.raises(ValueError, match="a multiple of 4 and num_heads between 1 and channels, got 6 and 6"):
        PositionAttention(6, (2, 2))
