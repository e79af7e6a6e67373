"""Masks in every stage: whose features flow where, what they train on, what they log, which checkpoints they take."""

import pytest
import roi_heads_tools as h
import torch
from d2_balanced.modeling.roi_heads import CascadeStages, InterleavedMasks, RecursiveStages
from roi_heads_tools import AGNOSTIC, CASCADE, FLOW, RECURSIVE

LOOPS = {**AGNOSTIC, **RECURSIVE, **FLOW}
HTC = {**AGNOSTIC, **CASCADE, **FLOW}
ONE_LOOP = {
    **LOOPS,
    "MODEL__ROI_BOX_CASCADE_HEAD__IOUS": (0.5,),
    "MODEL__BALANCED__STAGES": {"NAME": "RecursiveStages", "NUM_TEST": 3},
}


class MasksThatKeepTheirSamples(InterleavedMasks):
    """Interleaved masks that append what every stage of them trains on to a list."""

    def __init__(self, drawn):
        super().__init__()
        self.drawn = drawn

    def stage_losses(self, parts, refined, stage):
        def label_and_sample(*args):
            self.drawn.append(parts.label_and_sample(*args))
            return self.drawn[-1]

        return super().stage_losses(parts._replace(label_and_sample=label_and_sample), refined, stage)


@pytest.fixture
def batch():
    targets = h.targets((4, 7), masks=True)
    return h.features(2), h.proposals(targets), targets


def test_more_loops_at_inference_than_the_one_that_was_trained_pass_nothing_on(batch):
    features, proposals, targets = batch
    heads = h.build(h.tiny_cfg(**ONE_LOOP))
    gradients = h.train_step(heads, features, proposals, targets)[1]
    assert {name for name, p in heads.named_parameters() if p.requires_grad} <= set(gradients)
    found = h.detect(heads, features, proposals)
    with torch.no_grad():
        pooled = heads.pool_masks(features, [i.pred_boxes for i in found])
        masks = heads.mask_head.predict(heads.mask_head.features(pooled, None)).sigmoid()
    classes = torch.cat([i.pred_classes for i in found])
    expected = masks[torch.arange(len(classes)), classes][:, None]
    torch.testing.assert_close(torch.cat([i.pred_masks for i in found]), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("settings", [LOOPS, HTC])
def test_a_convolution_that_nothing_flows_through_is_refused(settings):
    heads = h.build(h.tiny_cfg(**settings))
    with pytest.raises(ValueError, match="information_flow=False and 3 training stage.*takes_previous must be"):
        InterleavedMasks(information_flow=False).check(heads)


def test_every_stage_logs_its_own_masks(batch):
    logged = h.train_step(h.build(h.tiny_cfg(**LOOPS)), *batch)[3]
    assert [name for name in sorted(logged) if name.endswith("mask_rcnn/accuracy")] == [
        f"stage{k}/mask_rcnn/accuracy" for k in range(3)
    ]


def test_masks_train_on_refined_boxes_and_not_on_generated_ones(batch):
    features, proposals, targets = batch
    heads = h.build(h.tiny_cfg(**LOOPS, MODEL__BALANCED__EXTRA_PROPOSALS={"NAME": "GeneratedPositives"}))
    generated, drawn = [], []
    heads.extra_proposals.register_forward_hook(lambda *args: generated.append(args[-1]))
    heads.mask_branch = MasksThatKeepTheirSamples(drawn)
    _, views = h.watched_step(heads, features, proposals, targets)
    assert len(generated) == 1 and len(drawn) == 3, "generated for the first stage's boxes only"
    assert any(image.is_generated.any() for image in views[0].samples[0])
    assert all(len(image) > 0 and not image.has("is_generated") for images in drawn for image in images)


def test_the_mask_head_of_a_cascade_mask_rcnn_initialises_every_stage():
    one = h.build(h.tiny_cfg(**AGNOSTIC, **CASCADE, MODEL__MASK_ON=True), seed=1)
    every = h.build(h.tiny_cfg(**HTC), seed=2)
    missing, unexpected = every.load_state_dict(one.state_dict(), strict=False)
    assert sorted(missing) == [f"mask_head.{k}.previous.{name}" for k in (1, 2) for name in ("bias", "weight")]
    assert unexpected == []
    for head in every.mask_head:
        assert all(torch.equal(head.state_dict()[name], value) for name, value in one.mask_head.state_dict().items())
    again = h.build(h.tiny_cfg(**HTC), seed=3)
    assert again.load_state_dict(every.state_dict()).missing_keys == []


@pytest.mark.parametrize("settings", [{}, {**AGNOSTIC, **RECURSIVE}, {**AGNOSTIC, **CASCADE}])
def test_a_diverged_detector_detects_nothing(batch, settings):
    features, proposals, _ = batch
    heads = h.build(h.tiny_cfg(**settings))
    with torch.no_grad():
        for name, parameter in heads.named_parameters():
            if name.endswith("bbox_pred.weight"):
                parameter.fill_(float("inf"))
    assert [len(found) for found in h.detect(heads, features, proposals)] == [0, 0]


def test_a_cascade_divides_the_gradient_into_the_features_unless_told(batch):
    def gradient(**stages):
        node = {"NAME": "CascadeStages", **stages}
        heads = h.build(h.tiny_cfg(**AGNOSTIC, MODEL__BALANCED__STAGES=node))
        return h.train_step(heads, *batch)[1]["p2"]

    assert gradient().abs().max() > 0
    torch.testing.assert_close(3 * gradient(), gradient(FEATURE_GRAD_SCALE=1.0))


@pytest.mark.parametrize("settings", [{"num_test": 2.5}, {"num_test": "2"}, {"loss_weights": [1, float("nan"), 1]},
                                      {"loss_weights": [1, float("inf"), 1]}])  # fmt: skip
@pytest.mark.parametrize("stages", [CascadeStages, RecursiveStages])
def test_settings_without_a_meaning_are_refused(stages, settings):
    with pytest.raises(ValueError, match=f"{stages.__name__}: {next(iter(settings))} must be"):
        stages(**settings)


def test_box_weights_of_stages_are_refused_where_there_is_one_head():
    weights = ((10, 10, 5, 5),) * 3
    with pytest.raises(ValueError, match="BBOX_REG_WEIGHTS: .* does not go with .*RecursiveStages, .* leave it out"):
        h.build(h.tiny_cfg(**RECURSIVE, MODEL__ROI_BOX_CASCADE_HEAD__BBOX_REG_WEIGHTS=weights))
