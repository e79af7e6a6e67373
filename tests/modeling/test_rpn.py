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
from torch.nn import functional as F

from d2_balanced.config import check_config, get_balanced_cfg
from d2_balanced.modeling.box_losses import BalancedL1, DynamicSmoothL1, EIoU, GHMR, GIoU, KLLoss, SmoothL1
from d2_balanced.modeling.cls_losses import (
    ClassBalanced,
    EQLv2,
    FocalLoss,
    GHMC,
    QualityFocal,
    SeesawLoss,
    Varifocal,
)
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


class OwnBinaryLoss(torch.nn.Module):
    """An outsider's loss, which says that it does not read the background's logit."""

    reads_background = False

    def forward(self, logits, labels):
        objectness, target = logits[:, 0], (labels == 0).to(logits.dtype)
        return F.binary_cross_entropy_with_logits(objectness, target, reduction="none")


@pytest.mark.parametrize("targets", IMAGES.values(), ids=IMAGES.keys())
@pytest.mark.parametrize(
    "own, shared",
    [
        (dict(), dict()),
        (dict(), dict(box_reg_loss_type="giou")),
        (dict(), dict(anchor_boundary_thresh=0, smooth_l1_beta=0.5)),
        (dict(sampler=RandomSampler(), box_loss=SmoothL1()), dict()),
        (dict(sampler=IoUBalancedSampler(num_bins=1), box_loss=SmoothL1(beta=0.5)), dict(smooth_l1_beta=0.5)),
        (dict(cls_loss=FocalLoss(gamma=0.0, form="sigmoid"), box_loss=GIoU()), dict(box_reg_loss_type="giou")),
        (dict(cls_loss=OwnBinaryLoss(), box_loss=GHMR(mu=0.0, bins=1)), dict()),
    ],
    ids=["defaults", "giou", "boundary", "random and L1", "one bin and smooth L1", "focal and GIoU", "own and GHM-R"],
)
def test_neutral_settings_are_detectron2_to_the_bit(targets, own, shared):
    if "box_loss" in own and "box_reg_loss_type" in shared:
        theirs, ours = build(RPN, **shared), build(BalancedRPN, **own)
    else:
        theirs, ours = build(RPN, **shared), build(BalancedRPN, **shared, **own)
    assert set(ours.state_dict()) - set(theirs.state_dict()) <= {"box_loss.density.counts"}
    torch.testing.assert_close(step(ours, targets), step(theirs, targets), rtol=0, atol=0)


@pytest.mark.parametrize("targets", IMAGES.values(), ids=IMAGES.keys())
@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_every_sampler_trains_finitely(sampler, targets):
    result = step(build(BalancedRPN, sampler=sampler, box_loss=BalancedL1()), targets)
    assert all(torch.isfinite(x).all() for group in ("losses", "gradients") for x in result[group].values())


@pytest.mark.parametrize("targets", IMAGES.values(), ids=IMAGES.keys())
@pytest.mark.parametrize(
    "make", [QualityFocal, Varifocal, lambda: GHMC(form="sigmoid"), lambda: EQLv2(objectness=False)]
)
def test_every_classification_loss_trains_finitely(make, targets):
    rpn = build(BalancedRPN, cls_loss=make(), box_loss=EIoU())
    for _ in range(2):
        result = step(rpn, targets)
        assert all(torch.isfinite(x).all() for group in ("losses", "gradients") for x in result[group].values())
        for module in rpn.modules():
            if hasattr(module, "end_iteration"):
                module.end_iteration(0)


@pytest.mark.parametrize("of", ["predicted", "proposal"])
def test_a_classification_loss_gets_objects_as_class_0_and_their_ious(of):
    calls = []

    class Spy(OwnBinaryLoss):
        wants_ious = of

        def forward(self, logits, labels, ious):
            calls.append((logits, labels, ious))
            return super().forward(logits, labels)

    rpn, targets = build(BalancedRPN, cls_loss=Spy()), IMAGES["one image without objects"]
    torch.nn.init.normal_(rpn.rpn_head.anchor_deltas.weight, std=0.3)
    step(rpn, targets)
    ((logits, labels, ious),) = calls
    generator = torch.Generator().manual_seed(7)
    features = [torch.randn(2, CHANNELS, SIZE[0] // s, SIZE[1] // s, generator=generator) for s in STRIDES.values()]
    anchors = rpn.anchor_generator(features)
    torch.manual_seed(0)
    (sampled, _), (matched, _) = rpn.label_and_sample_anchors(anchors, targets)
    positive = (sampled == 1).nonzero()[:, 0]
    boxes = Boxes.cat(anchors).tensor[positive]
    if of == "predicted":
        deltas = [x.view(2, 3, 4, *x.shape[2:]).permute(0, 3, 4, 1, 2).flatten(1, 3) for x in rpn.rpn_head(features)[1]]
        boxes = rpn.box2box_transform.apply_deltas(torch.cat(deltas, dim=1)[0, positive], boxes)
    wanted = pairwise_iou(Boxes(boxes), Boxes(matched[positive])).diagonal()
    assert logits.shape == (128, 2) and (logits[:, 1] == 0).all() and not ious.requires_grad
    assert (labels == 0).sum() == len(positive) and (labels == 1).sum() == 128 - len(positive)
    torch.testing.assert_close(ious[labels == 0], wanted)
    assert (ious[labels == 1] == 0).all() and wanted.min() > 0.01


@pytest.mark.parametrize(
    "cls_loss, message",
    [
        (SeesawLoss(), "cls_loss=SeesawLoss does not go with BalancedRPN.*logit of the background"),
        (FocalLoss(), "cls_loss=FocalLoss .*form='sigmoid'"),
        (EQLv2(), "cls_loss=EQLv2 .*objectness=False"),
        (torch.nn.CrossEntropyLoss(), "cls_loss=CrossEntropyLoss .*logit of the background"),
        (ClassBalanced(form="sigmoid"), "cls_loss=ClassBalanced .*weighs classes"),
        (FocalLoss(form="sigmoid", prior=0.1), "cls_loss=FocalLoss with prior=0.1 does not go with BalancedRPN"),
    ],
)
def test_classification_losses_that_mean_nothing_here_are_refused(cls_loss, message):
    with pytest.raises(ValueError, match=message):
        build(BalancedRPN, cls_loss=cls_loss)


def test_a_box_loss_of_predicted_variances_is_refused():
    with pytest.raises(ValueError, match="box_loss=KLLoss does not go with BalancedRPN.*variances"):
        build(BalancedRPN, box_loss=KLLoss())


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


def losses_at_zero(rpn, num_positives, num_negatives):
    """Losses of one image whose minibatch has so many anchors, all objectness logits 0, and deltas 1 off."""
    anchors = rpn.anchor_generator([torch.zeros(1, 1, SIZE[0] // s, SIZE[1] // s) for s in STRIDES.values()])
    everything = Boxes.cat(anchors).tensor
    labels = torch.full((len(everything),), -1, dtype=torch.int8)
    labels[:num_positives], labels[num_positives : num_positives + num_negatives] = 1, 0
    zeros, ones = [torch.zeros(1, len(a)) for a in anchors], [torch.ones(1, len(a), 4) for a in anchors]
    with EventStorage():
        losses = rpn.losses(anchors, zeros, [labels], ones, [everything])
    return {name: loss.item() for name, loss in losses.items()}


@pytest.mark.parametrize("counts", [(2, 10), (0, 5), (0, 0)], ids=str)
@pytest.mark.parametrize(
    "sampler, normalizer, sampled",
    [
        (RandomSampler(neg_pos_ub=5), None, True),  # Libra R-CNN's release: ln 2 = 0.693, not ln 2 * 12 / 64
        (RandomSampler(), None, False),
        (RandomSampler(neg_pos_ub=5), "batch_size", False),
        (RandomSampler(), "sampled", True),
        (lambda *candidates: None, None, False),  # somebody's own
    ],
)
def test_losses_are_divided_by_the_anchors_sampled_where_the_sampler_bounds_them(sampler, normalizer, sampled, counts):
    rpn = build(BalancedRPN, sampler=sampler, normalizer=normalizer)
    losses, divisor = losses_at_zero(rpn, *counts), max(sum(counts), 1) if sampled else 64
    assert losses["loss_rpn_cls"] == pytest.approx(0.6931472 * sum(counts) / divisor)
    assert losses["loss_rpn_loc"] == pytest.approx(2.0 * 4 * counts[0] / divisor)  # L1, with the loss weight


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
    assert from_yacs(cfg).normalizer == "sampled"
    cfg.MODEL.BALANCED.RPN.NORMALIZER = "batch_size"
    rpn = from_yacs(cfg)
    assert rpn.normalizer == "batch_size" and rpn.sampler.neg_pos_ub == 5 and rpn.box_loss.settings["alpha"] == 0.2


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


def test_an_unknown_normalizer_is_refused():
    with pytest.raises(ValueError, match="BalancedRPN: normalizer must be one of batch_size, sampled; got 'anchors'"):
        build(BalancedRPN, normalizer="anchors")
    cfg = yacs()
    cfg.MODEL.BALANCED.RPN.NORMALIZER = "anchors"
    with pytest.raises(ValueError, match="MODEL.BALANCED.RPN.NORMALIZER: must be one of batch_size, sampled, got 'anchors'"):
        check_config(cfg)


def test_lazy_config():
    node = L(build)(cls=BalancedRPN, sampler=L(IoUBalancedSampler)(num_bins=5), box_loss=L(BalancedL1)())
    node.normalizer = "sampled"
    rpn = instantiate(node)
    assert rpn.normalizer == "sampled"
    assert rpn.sampler.num_bins == 5 and isinstance(rpn.box_loss, BalancedL1)


def test_a_script_is_detectron2s_rpn():
    """torch.jit.script, deprecated as it is, compiles neither components nor super(); for inference none is needed."""
    rpn = build(BalancedRPN, box_loss=GHMR()).eval()
    features = {name: torch.randn(1, CHANNELS, SIZE[0] // s, SIZE[1] // s) for name, s in STRIDES.items()}
    images = ImageList(torch.zeros(1, 3, *SIZE), [SIZE])
    scripted = scripting_with_instances(rpn, {"proposal_boxes": Boxes, "objectness_logits": torch.Tensor})
    assert type(rpn) is BalancedRPN and isinstance(rpn.box_loss, GHMR) and rpn.cls_loss is not None
    with torch.no_grad():
        ((found,), _), ((expected,), _) = scripted(images, features), rpn(images, features)
    assert torch.equal(found.proposal_boxes.tensor, expected.proposal_boxes.tensor) and len(expected) > 0
