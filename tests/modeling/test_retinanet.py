"""BalancedRetinaNet: detectron2's RetinaNet at the defaults, repeatable gradients, box losses, the normaliser."""

import math

import pytest
import torch
from dense_tools import OBJECTS, K, ToyBackbone, image
from detectron2.layers import ShapeSpec
from detectron2.modeling import RetinaNet, build_model
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch import retinanet as detectron2_retinanet
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage
from fvcore.nn import sigmoid_focal_loss
from reference.cls_losses import GradientDensity, quality_focal
from reference.losses import balanced_l1
from reference.losses import iou as box_iou

from d2_balanced.config import get_balanced_cfg
from d2_balanced.engine.training_state import gather_plain_attributes, load_plain_attributes
from d2_balanced.modeling.box_losses import BalancedL1, DynamicSmoothL1, EIoU, SmoothL1
from d2_balanced.modeling.cls_losses import GHMC, ClassBalanced, EQLv2, FocalLoss, QualityFocal, Varifocal
from d2_balanced.modeling.meta_arch import BalancedRetinaNet
from d2_balanced.modeling.suppression import NMS, BoxVoting, IoUGuidedNMS, SoftNMS, VarianceVoting


def build(cls, seed=0, **options):
    torch.manual_seed(seed)
    settings = dict(
        backbone=ToyBackbone(),
        head=RetinaNetHead(
            input_shape=[ShapeSpec(channels=4)] * 2, num_classes=K, num_anchors=3, conv_dims=[4], norm=""
        ),
        head_in_features=["p3", "p4"],
        anchor_generator=DefaultAnchorGenerator(sizes=[[24], [48]], aspect_ratios=[[0.5, 1.0, 2.0]], strides=[8, 16]),
        box2box_transform=Box2BoxTransform((1.0, 1.0, 1.0, 1.0)),
        anchor_matcher=Matcher([0.4, 0.5], [0, -1, 1], allow_low_quality_matches=True),
        num_classes=K,
        pixel_mean=[127.5] * 3,
        pixel_std=[64.0] * 3,
    )
    return cls(**{**settings, **options})


BATCHES = {
    "objects": OBJECTS,
    "one image without objects": [OBJECTS[0], image()],
    "no objects": [image(), image(seed=1)],
}


def step(model, batch):
    model.train().zero_grad()
    with EventStorage():
        losses = model(batch)
    sum(losses.values()).backward()
    return {"losses": losses, "gradients": {n: p.grad.clone() for n, p in model.named_parameters()}}


@pytest.fixture
def eager_detectron2(monkeypatch):
    monkeypatch.setattr(detectron2_retinanet, "sigmoid_focal_loss_jit", sigmoid_focal_loss)


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES.keys())
@pytest.mark.parametrize(
    "own, shared",
    [
        (dict(), dict()),
        (dict(), dict(box_reg_loss_type="giou")),
        (dict(box_loss=SmoothL1()), dict()),
        (dict(box_loss=SmoothL1(beta=0.1)), dict(smooth_l1_beta=0.1)),
        (dict(cls_loss=FocalLoss(2.0, 0.25, form="sigmoid")), dict()),
        (dict(cls_loss=FocalLoss(1.0, 0.5, form="sigmoid")), dict(focal_loss_gamma=1.0, focal_loss_alpha=0.5)),
    ],
    ids=["defaults", "giou", "L1", "smooth L1", "focal", "another focal"],
)
def test_neutral_settings_are_detectron2_with_its_eager_focal_loss_to_the_bit(batch, own, shared, eager_detectron2):
    theirs, ours = build(RetinaNet, **shared), build(BalancedRetinaNet, **shared, **own)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for _ in range(2):  # the second step has a moved normaliser
        torch.testing.assert_close(step(ours, batch), step(theirs, batch), rtol=0, atol=0)


def test_losses_are_those_of_the_scripted_focal_loss():
    ours, theirs = step(build(BalancedRetinaNet), OBJECTS), step(build(RetinaNet), OBJECTS)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_gradients_repeat_to_the_bit_from_the_first_call():
    model = build(BalancedRetinaNet, box_loss=BalancedL1())
    results = []
    for _ in range(5):
        model.loss_normalizer = 100.0
        results.append(step(model, OBJECTS))
    for later in results[1:]:
        torch.testing.assert_close(later, results[0], rtol=0, atol=0)


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES.keys())
@pytest.mark.parametrize("form", ["scaled", "released"])
def test_balanced_l1_trains_finitely(batch, form):
    result = step(build(BalancedRetinaNet, box_loss=BalancedL1(beta=0.11, form=form)), batch)
    assert all(torch.isfinite(x).all() for group in result.values() for x in group.values())


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES.keys())
@pytest.mark.parametrize(
    "make",
    [
        QualityFocal,
        Varifocal,
        lambda: GHMC(form="sigmoid"),
        lambda: EQLv2(objectness=False),
        lambda: ClassBalanced(form="sigmoid", gamma=2.0),
    ],
)
def test_every_classification_loss_trains_finitely(make, batch):
    model = build(BalancedRetinaNet, cls_loss=make(), box_loss=EIoU())
    for _ in range(2):
        result = step(model, batch)
        assert all(torch.isfinite(x).all() for group in result.values() for x in group.values())
        for module in model.modules():
            if hasattr(module, "end_iteration"):
                module.end_iteration(0)


def test_the_focal_component_is_the_focal_loss_through_the_seat_of_all_losses(eager_detectron2):
    """With a weight it is no longer detectron2's own, and is computed as every other loss is."""
    weighed = step(build(BalancedRetinaNet, cls_loss=FocalLoss(2.0, 0.25, form="sigmoid", loss_weight=2.0)), OBJECTS)
    plain = step(build(BalancedRetinaNet), OBJECTS)
    torch.testing.assert_close(weighed["losses"]["loss_cls"], 2 * plain["losses"]["loss_cls"])


@pytest.mark.parametrize("of", ["predicted", "proposal"])
def test_a_quality_loss_gets_the_ious_of_the_positive_anchors(of):
    loss = QualityFocal(ious=of)
    model = build(BalancedRetinaNet, cls_loss=loss)
    anchors = model.anchor_generator([torch.zeros(1, 4, 8, 12), torch.zeros(1, 4, 4, 6)])
    labels, boxes = model.label_anchors(anchors, [x["instances"] for x in OBJECTS])
    logits = [torch.randn(2, len(a), K) for a in anchors]
    deltas = [0.3 * torch.randn(2, len(a), 4) for a in anchors]
    with EventStorage():
        found = model.losses(anchors, logits, labels, deltas, boxes)["loss_cls"].item()
    total, num_positives, everything = 0.0, 0, Boxes.cat(anchors).tensor
    for i in range(2):
        for anchor in (labels[i] >= 0).nonzero()[:, 0]:
            label, iou = labels[i][anchor].item(), 0.0
            if label < K:
                box = everything[anchor][None]
                if of == "predicted":
                    box = model.box2box_transform.apply_deltas(torch.cat(deltas, dim=1)[i, anchor][None], box)
                iou = box_iou(box[0].tolist(), boxes[i][anchor].tolist())
                num_positives += 1
            total += quality_focal(torch.cat(logits, dim=1)[i, anchor].tolist(), label, iou, 2.0)
    assert found == pytest.approx(total / (0.9 * 100 + 0.1 * num_positives), rel=1e-5)


def test_ghm_c_is_the_mean_over_anchors_and_classes_of_its_paper():
    """As many easy anchors as there may be: divided by the positives, whose number they do not change, it would grow."""
    model = build(BalancedRetinaNet, cls_loss=GHMC(bins=5, momentum=0.0, form="sigmoid"))
    anchors = model.anchor_generator([torch.zeros(1, 4, 8, 12), torch.zeros(1, 4, 4, 6)])
    labels, boxes = model.label_anchors(anchors, [x["instances"] for x in OBJECTS])
    logits, deltas = ([torch.randn(2, len(a), columns) for a in anchors] for columns in (K, 4))
    norms, values = [], []
    for i in range(2):
        for anchor in (labels[i] >= 0).nonzero()[:, 0]:
            for c, logit in enumerate(torch.cat(logits, dim=1)[i, anchor].tolist()):
                missing = 1 / (1 + math.exp(logit if labels[i][anchor] == c else -logit))
                norms.append(missing)
                values.append(-math.log(1 - missing))
    weights = GradientDensity(5, 0.0, "bins").weights(norms)
    with EventStorage():
        found = model.losses(anchors, logits, labels, deltas, boxes)["loss_cls"].item()
    wanted = sum(weight * value for weight, value in zip(weights, values)) / len(values)
    assert found == pytest.approx(wanted, rel=1e-5)
    ignored = [torch.full_like(each, -1) for each in labels]
    with EventStorage():
        assert model.losses(anchors, logits, ignored, deltas, boxes)["loss_cls"] == 0


def test_settings_of_the_focal_loss_that_another_loss_would_ignore_are_refused():
    with pytest.raises(ValueError, match="BalancedRetinaNet: focal_loss_alpha=0.5.*cls_loss=QualityFocal"):
        build(BalancedRetinaNet, cls_loss=QualityFocal(), focal_loss_alpha=0.5)
    with pytest.raises(ValueError, match="BalancedRetinaNet: focal_loss_gamma=1.0.*cls_loss=FocalLoss"):
        build(BalancedRetinaNet, cls_loss=FocalLoss(form="sigmoid", alpha=0.25), focal_loss_gamma=1.0)
    with pytest.raises(ValueError, match="cls_loss=GHMC does not go with BalancedRetinaNet.*logit of the background"):
        build(BalancedRetinaNet, cls_loss=GHMC())


def test_all_ignored():
    model = build(BalancedRetinaNet, box_loss=BalancedL1())
    anchors = model.anchor_generator([torch.zeros(1, 4, 8, 12), torch.zeros(1, 4, 4, 6)])
    predictions = [[torch.randn(1, len(a), c, requires_grad=True) for a in anchors] for c in (K, 4)]
    num = sum(len(a) for a in anchors)
    with EventStorage():
        losses = model.losses(anchors, predictions[0], [torch.full((num,), -1)], predictions[1], [torch.zeros(num, 4)])
    sum(losses.values()).backward()
    assert all(loss == 0 for loss in losses.values()) and all((p.grad == 0).all() for p in sum(predictions, []))


def test_box_loss_is_summed_over_positives_with_its_weight():
    model = build(BalancedRetinaNet, box_loss=BalancedL1(loss_weight=1.5))
    anchors = model.anchor_generator([torch.zeros(1, 4, 8, 12), torch.zeros(1, 4, 4, 6)])
    labels, boxes = model.label_anchors(anchors, [x["instances"] for x in OBJECTS])
    logits = [torch.randn(2, len(a), K) for a in anchors]
    deltas = [torch.randn(2, len(a), 4) for a in anchors]
    with EventStorage():
        losses = model.losses(anchors, logits, labels, deltas, boxes)
    total, num_positives, everything = 0.0, 0, Boxes.cat(anchors).tensor
    for i in range(2):
        for anchor in ((labels[i] >= 0) & (labels[i] < K)).nonzero()[:, 0]:
            target = model.box2box_transform.get_deltas(everything[anchor][None], boxes[i][anchor][None])[0]
            residuals = torch.cat(deltas, dim=1)[i, anchor] - target
            total += sum(balanced_l1(x, 0.5, 1.5) for x in residuals.tolist())
            num_positives += 1
    normalizer = 0.9 * 100 + 0.1 * num_positives
    assert losses["loss_box_reg"].item() == pytest.approx(1.5 * total / normalizer, rel=1e-5)


def test_normaliser_survives_a_resume_through_the_trainers_checkpoint():
    unbroken, first = build(BalancedRetinaNet), build(BalancedRetinaNet)
    for model in (unbroken, first):
        step(model, OBJECTS)
    resumed = build(BalancedRetinaNet)
    load_plain_attributes(resumed, gather_plain_attributes(first))
    batch = BATCHES["no objects"]
    torch.testing.assert_close(step(resumed, batch), step(unbroken, batch), rtol=0, atol=0)
    assert resumed.loss_normalizer == unbroken.loss_normalizer != 100


def yacs():
    cfg = get_balanced_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "BalancedRetinaNet"
    cfg.MODEL.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 18, 64
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 8
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    return cfg


def test_yacs():
    cfg = yacs()
    assert isinstance(build_model(cfg).box_loss, SmoothL1)
    assert build_model(cfg).box_loss.beta == cfg.MODEL.RETINANET.SMOOTH_L1_LOSS_BETA == 0.1
    cfg.MODEL.RETINANET.FOCAL_LOSS_ALPHA = 0.5
    focal = build_model(cfg).cls_loss
    assert (focal.form, focal.alpha, focal.gamma) == ("sigmoid", 0.5, 2.0)
    cfg.MODEL.RETINANET.FOCAL_LOSS_ALPHA = 0.25
    cfg.MODEL.BALANCED.RETINANET.CLS_LOSS = type(cfg)({"NAME": "GHMC", "BINS": 7})
    assert build_model(cfg).cls_loss.form == "sigmoid" and build_model(cfg).cls_loss.density.bins == 7
    cfg.MODEL.BALANCED.RETINANET.CLS_LOSS = type(cfg)({"NAME": "FocalLoss"})
    cfg.MODEL.BALANCED.RETINANET.BOX_LOSS = type(cfg)({"NAME": "BalancedL1", "BETA": 0.11, "FORM": "released"})
    model = build_model(cfg)
    assert model.box_loss.settings == {"alpha": 0.5, "gamma": 1.5, "beta": 0.11, "form": "released"}
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    assert list(model.state_dict()) == list(build_model(cfg).state_dict())


def test_two_choices_of_the_loss_are_refused_naming_both():
    cfg = yacs()
    cfg.MODEL.RETINANET.BBOX_REG_LOSS_TYPE = "giou"
    cfg.MODEL.BALANCED.RETINANET.BOX_LOSS.NAME = "BalancedL1"
    both = "MODEL.BALANCED.RETINANET.BOX_LOSS.*MODEL.RETINANET.BBOX_REG_LOSS_TYPE: giou"
    with pytest.raises(ValueError, match=both):
        build_model(cfg)
    with pytest.raises(ValueError, match="BalancedRetinaNet: box_loss=BalancedL1.*box_reg_loss_type='diou'"):
        build(BalancedRetinaNet, box_loss=BalancedL1(), box_reg_loss_type="diou")


def test_a_box_loss_that_follows_proposals_is_refused():
    with pytest.raises(ValueError, match="box_loss=DynamicSmoothL1 does not go with BalancedRetinaNet.* does not have"):
        build(BalancedRetinaNet, box_loss=DynamicSmoothL1())


def detections(model, batch=OBJECTS):
    with torch.no_grad():
        return [output["instances"].get_fields() for output in model.eval()(batch)]


def equal(one, other):
    return [[torch.equal(getattr(a, "tensor", a), getattr(b, "tensor", b)) for a, b in zip(x.values(), y.values())]
            for x, y in zip(one, other)]  # fmt: skip


@pytest.mark.parametrize("nms", [None, NMS(), SoftNMS("hard", min_score=0.0), BoxVoting(vote_sigma=1e-30)], ids=str)
def test_neutral_suppressions_are_detectron2_to_the_bit(nms):
    options = dict(test_score_thresh=0.009, test_nms_thresh=0.4, max_detections_per_image=15)
    theirs, ours = (detections(build(cls, **options, **own)) for cls, own in (
        (RetinaNet, {}), (BalancedRetinaNet, dict(nms=nms))))  # fmt: skip
    assert [len(image["scores"]) for image in theirs] == [15, 15]
    assert equal(theirs, ours) == [[True] * 3] * 2


def test_another_suppression_changes_scores_or_boxes():
    options = dict(test_score_thresh=0.009)
    plain = detections(build(BalancedRetinaNet, **options))
    soft, voted = (detections(build(BalancedRetinaNet, **options, nms=nms)) for nms in (SoftNMS(), BoxVoting(0.1)))
    for kept, more, moved in zip(plain, soft, voted):
        assert len(more["scores"]) > len(kept["scores"]) or not torch.equal(more["scores"], kept["scores"])
        assert not torch.equal(moved["pred_boxes"].tensor, kept["pred_boxes"].tensor)
    assert [len(image["scores"]) for image in detections(build(BalancedRetinaNet, nms=SoftNMS()))] == [0, 0]


@pytest.mark.parametrize("nms", [IoUGuidedNMS(), VarianceVoting(), SoftNMS(joint=True)], ids=str)
def test_a_suppression_of_what_a_retinanet_does_not_have_is_refused(nms):
    with pytest.raises(ValueError, match=f"{type(nms).__name__}.*BalancedRetinaNet.*which a RetinaNet has not"):
        build(BalancedRetinaNet, nms=nms)
