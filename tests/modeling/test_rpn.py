"""BalancedRPN: detectron2's RPN at the defaults, the sampler's inputs and bounds, box losses, yacs and LazyConfig."""

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.export import scripting_with_instances
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.proposal_generator import RPN, build_proposal_generator
from detectron2.modeling.proposal_generator.rpn import StandardRPNHead
from detectron2.structures import Boxes, ImageList, Instances, pairwise_iou
from detectron2.utils.events import EventStorage
from reference.losses import balanced_l1

from d2_balanced.config import get_balanced_cfg
from d2_balanced.modeling.box_losses import BalancedL1, SmoothL1
from d2_balanced.modeling.dynamic_smooth_l1 import DynamicSmoothL1
from d2_balanced.modeling.proposal_generator import BalancedRPN
from d2_balanced.modeling.sampling import HardRatioSampler, InstanceBalancedSampler, IoUBalancedSampler, RandomSampler

SIZE, CHANNELS = (64, 96), 4
STRIDES = {"p2": 4, "p3": 8}
SAMPLERS = [RandomSampler(neg_pos_ub=5), IoUBalancedSampler(floor_thr=0.0), InstanceBalancedSampler()]


def build(cls, seed=0, **options):
    torch.manual_seed(seed)
    strides = list(STRIDES.values())
    anchors = DefaultAnchorGenerator(sizes=[[16], [32]], aspect_ratios=[[0.5, 1.0, 2.0]], strides=strides)
    settings = dict(
        in_features=list(STRIDES),
        head=StandardRPNHead(in_channels=CHANNELS, num_anchors=3),
        anchor_generator=anchors,
        anchor_matcher=Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True),
        box2box_transform=Box2BoxTransform((1.0, 1.0, 1.0, 1.0)),
        batch_size_per_image=64,
        positive_fraction=0.5,
        pre_nms_topk=(200, 100),
        post_nms_topk=(50, 30),
        loss_weight={"loss_rpn_cls": 1.0, "loss_rpn_loc": 2.0},
    )
    return cls(**{**settings, **options})


def ground_truth(*boxes):
    gt = Instances(SIZE)
    gt.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    return gt


IMAGES = {
    "objects": [ground_truth((5, 5, 30, 25), (40, 10, 60, 50)), ground_truth((0, 0, 90, 60))],
    "one image without objects": [ground_truth((5, 5, 30, 25)), ground_truth()],
    "no objects": [ground_truth(), ground_truth()],
}


def step(rpn, targets, seed=0):
    """Losses, gradients, proposals and the next random number of one training step."""
    generator = torch.Generator().manual_seed(7)
    features = {
        name: torch.randn(len(targets), CHANNELS, SIZE[0] // s, SIZE[1] // s, generator=generator)
        for name, s in STRIDES.items()
    }
    images = ImageList(torch.zeros(len(targets), 3, *SIZE), [SIZE] * len(targets))
    rpn.zero_grad()
    torch.manual_seed(seed)
    with EventStorage():
        proposals, losses = rpn.train()(images, features, targets)
    sum(losses.values()).backward()
    gradients = {name: p.grad.clone() for name, p in rpn.named_parameters()}
    boxes = [p.proposal_boxes.tensor for p in proposals]
    return {"losses": losses, "gradients": gradients, "boxes": boxes, "random": torch.rand(1)}


@pytest.mark.parametrize("targets", IMAGES.values(), ids=IMAGES.keys())
@pytest.mark.parametrize(
    "own, shared",
    [
        (dict(), dict()),
        (dict(), dict(box_reg_loss_type="giou")),
        (dict(), dict(anchor_boundary_thresh=0, smooth_l1_beta=0.5)),
        (dict(sampler=RandomSampler(), box_loss=SmoothL1()), dict()),
        (dict(sampler=IoUBalancedSampler(num_bins=1), box_loss=SmoothL1(beta=0.5)), dict(smooth_l1_beta=0.5)),
    ],
    ids=["defaults", "giou", "boundary", "random and L1", "one bin and smooth L1"],
)
def test_neutral_settings_are_detectron2_to_the_bit(targets, own, shared):
    theirs, ours = build(RPN, **shared), build(BalancedRPN, **shared, **own)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    torch.testing.assert_close(step(ours, targets), step(theirs, targets), rtol=0, atol=0)


@pytest.mark.parametrize("targets", IMAGES.values(), ids=IMAGES.keys())
@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_every_sampler_trains_finitely(sampler, targets):
    result = step(build(BalancedRPN, sampler=sampler, box_loss=BalancedL1()), targets)
    assert all(torch.isfinite(x).all() for group in ("losses", "gradients") for x in result[group].values())


def test_sampler_gets_each_anchors_label_iou_and_match():
    seen = []

    def sampler(labels, ious, matched_idxs, num_samples, positive_fraction, bg_label):
        seen.append((labels.clone(), ious, matched_idxs, num_samples, positive_fraction, bg_label))
        return RandomSampler()(labels, ious, matched_idxs, num_samples, positive_fraction, bg_label)

    rpn = build(BalancedRPN, sampler=sampler)
    targets = IMAGES["one image without objects"]
    step(rpn, targets)
    anchors = Boxes.cat(rpn.anchor_generator([torch.zeros(1, 1, SIZE[0] // s, SIZE[1] // s) for s in STRIDES.values()]))
    assert len(seen) == len(targets)
    for gt, (labels, ious, matched_idxs, *settings) in zip(targets, seen):
        matrix = pairwise_iou(gt.gt_boxes, anchors)
        expected_idxs, expected_labels = rpn.anchor_matcher(matrix)
        assert torch.equal(labels, expected_labels) and torch.equal(matched_idxs, expected_idxs)
        assert torch.equal(ious, matrix.max(0).values if len(gt) else torch.zeros(len(anchors)))
        assert settings == [64, 0.5, 0]


def test_ignored_anchors_are_never_sampled_and_the_rest_is_marked():
    rpn = build(BalancedRPN, sampler=IoUBalancedSampler(), anchor_boundary_thresh=0)
    gt = ground_truth((5, 5, 30, 25), (40, 10, 60, 50))
    anchors = rpn.anchor_generator([torch.zeros(1, 1, SIZE[0] // s, SIZE[1] // s) for s in STRIDES.values()])
    (sampled,), _ = rpn.label_and_sample_anchors(anchors, [gt])
    _, labels = rpn.anchor_matcher(pairwise_iou(gt.gt_boxes, Boxes.cat(anchors)))
    labels[~Boxes.cat(anchors).inside_box(SIZE, 0)] = -1
    assert (sampled[labels == -1] == -1).all() and (labels[sampled >= 0] == sampled[sampled >= 0]).all()
    assert (sampled >= 0).sum() == 64 and (sampled == 1).sum() == (labels == 1).sum()


@pytest.mark.parametrize("targets", IMAGES.values(), ids=IMAGES.keys())
def test_neg_pos_ub(targets):
    rpn = build(BalancedRPN, sampler=RandomSampler(neg_pos_ub=5))
    anchors = rpn.anchor_generator([torch.zeros(1, 1, SIZE[0] // s, SIZE[1] // s) for s in STRIDES.values()])
    for labels in rpn.label_and_sample_anchors(anchors, targets)[0]:
        num_pos = int((labels == 1).sum())
        assert (labels == 0).sum() == min(5 * max(num_pos, 1), 64 - num_pos)


def test_box_loss_is_summed_over_positives_and_normalised_by_the_minibatch():
    rpn = build(BalancedRPN, box_loss=BalancedL1(alpha=0.3, gamma=1.0))
    targets = IMAGES["objects"]
    anchors = rpn.anchor_generator([torch.zeros(1, 1, SIZE[0] // s, SIZE[1] // s) for s in STRIDES.values()])
    labels, boxes = rpn.label_and_sample_anchors(anchors, targets)
    deltas = [torch.randn(2, len(a), 4) for a in anchors]
    with EventStorage():
        losses = rpn.losses(anchors, [torch.zeros(2, len(a)) for a in anchors], labels, deltas, boxes)
    total, everything = 0.0, Boxes.cat(anchors).tensor
    for image in range(2):
        for anchor in (labels[image] == 1).nonzero()[:, 0]:
            target = rpn.box2box_transform.get_deltas(everything[anchor][None], boxes[image][anchor][None])[0]
            residuals = torch.cat(deltas, dim=1)[image, anchor] - target
            total += sum(balanced_l1(x, 0.3, 1.0) for x in residuals.tolist())
    assert losses["loss_rpn_loc"].item() == pytest.approx(2.0 * total / (64 * 2), rel=1e-5)


# --- configuration ---------------------------------------------------------------------------------------------------


def yacs():
    cfg = get_balanced_cfg()
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "BalancedRPN"
    cfg.MODEL.RPN.IN_FEATURES = list(STRIDES)
    cfg.MODEL.RPN.SMOOTH_L1_BETA = 0.2
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[16], [32]]
    return cfg


def from_yacs(cfg):
    return build_proposal_generator(cfg, {n: ShapeSpec(channels=CHANNELS, stride=s) for n, s in STRIDES.items()})


def test_yacs():
    cfg = yacs()
    assert repr(from_yacs(cfg).sampler) == repr(RandomSampler()) and from_yacs(cfg).box_loss.beta == 0.2
    cfg.MODEL.BALANCED.RPN.SAMPLER = type(cfg)({"NAME": "RandomSampler", "NEG_POS_UB": 5})
    cfg.MODEL.BALANCED.RPN.BOX_LOSS = type(cfg)({"NAME": "BalancedL1", "ALPHA": 0.2})
    with pytest.raises(ValueError, match="smooth_l1_beta=0.2.*box_loss=BalancedL1"):
        from_yacs(cfg)
    cfg.MODEL.RPN.SMOOTH_L1_BETA = 0.0
    rpn = from_yacs(cfg)
    assert rpn.sampler.neg_pos_ub == 5 and rpn.box_loss.settings["alpha"] == 0.2


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("SAMPLER", {"NAME": "HardRatioSampler"}, "repeats positives"),
        ("SAMPLER", {"NAME": "IoUBalancedSampler", "NUM_BINS": 0}, "MODEL.BALANCED.RPN.SAMPLER.*num_bins"),
        ("SAMPLER", {"NAME": "IouBalancedSampler"}, "MODEL.BALANCED.RPN.SAMPLER.NAME.*IoUBalancedSampler"),
        ("BOX_LOSS", {"NAME": "BalancedL1", "BETA": -1.0}, "MODEL.BALANCED.RPN.BOX_LOSS.*beta"),
    ],
)
def test_bad_yacs_settings_are_refused(key, value, message):
    cfg = yacs()
    cfg.MODEL.BALANCED.RPN[key] = type(cfg)(value)
    with pytest.raises(ValueError, match=message):
        from_yacs(cfg)


def test_two_choices_of_the_loss_are_refused_naming_both():
    cfg = yacs()
    cfg.MODEL.RPN.BBOX_REG_LOSS_TYPE = "giou"
    assert from_yacs(cfg).box_loss is None
    cfg.MODEL.BALANCED.RPN.BOX_LOSS.NAME = "BalancedL1"
    with pytest.raises(ValueError, match="MODEL.BALANCED.RPN.BOX_LOSS.*MODEL.RPN.BBOX_REG_LOSS_TYPE: giou"):
        from_yacs(cfg)


def test_a_sampler_that_repeats_is_refused():
    for sampler in (HardRatioSampler(), IoUBalancedSampler(positives="hard_ratio")):
        with pytest.raises(ValueError, match="sampler=.* does not go with BalancedRPN, because the sampler repeats positives"):
            build(BalancedRPN, sampler=sampler)


def test_a_box_loss_that_follows_proposals_is_refused():
    with pytest.raises(ValueError, match="box_loss=DynamicSmoothL1 does not go with BalancedRPN.* does not have"):
        build(BalancedRPN, box_loss=DynamicSmoothL1())


def test_lazy_config():
    node = L(build)(cls=BalancedRPN, sampler=L(IoUBalancedSampler)(num_bins=5), box_loss=L(BalancedL1)())
    rpn = instantiate(node)
    assert rpn.sampler.num_bins == 5 and isinstance(rpn.box_loss, BalancedL1)


def test_a_script_is_detectron2s_rpn():
    """torch.jit.script, deprecated as it is, compiles neither components nor super(); for inference none is needed."""
    rpn = build(BalancedRPN).eval()
    features = {name: torch.randn(1, CHANNELS, SIZE[0] // s, SIZE[1] // s) for name, s in STRIDES.items()}
    images = ImageList(torch.zeros(1, 3, *SIZE), [SIZE])
    scripted = scripting_with_instances(rpn, {"proposal_boxes": Boxes, "objectness_logits": torch.Tensor})
    assert type(rpn) is BalancedRPN
    with torch.no_grad():
        ((found,), _), ((expected,), _) = scripted(images, features), rpn(images, features)
    assert torch.equal(found.proposal_boxes.tensor, expected.proposal_boxes.tensor) and len(expected) > 0
