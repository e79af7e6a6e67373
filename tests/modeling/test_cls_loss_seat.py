"""The seat of the classification loss in the predictor: detectron2's at the defaults, what a loss is given, scores."""

import copy
import inspect

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.structures import Boxes, Instances, pairwise_iou
from detectron2.utils.events import EventStorage
from torch import nn
from torch.nn import functional as F

from d2_balanced.config import get_balanced_cfg
from d2_balanced.modeling.box_losses import SmoothL1
from d2_balanced.modeling.box_predictor import BalancedFastRCNNOutputLayers
from d2_balanced.modeling.cls_losses import (
    ClassBalanced,
    CrossEntropy,
    EQLv2,
    FocalLoss,
    GHMC,
    QualityFocal,
    SeesawLoss,
)
from d2_balanced.modeling.cls_losses.seat import mean_loss

K, CHANNELS, SIZE = 3, 8, (100, 100)
CASES = {
    "mixed": [0, 1, 2, K, K, K, 2, K],
    "no foreground": [K, K, K],
    "one proposal": [1],
    "one background": [K],
}
each_case = pytest.mark.parametrize("classes", CASES.values(), ids=CASES.keys())


def predictor(cls=BalancedFastRCNNOutputLayers, seed=0, **options):
    torch.manual_seed(seed)
    module = cls(
        ShapeSpec(channels=CHANNELS),
        box2box_transform=Box2BoxTransform((10.0, 10.0, 5.0, 5.0)),
        num_classes=K,
        **options,
    )
    with torch.no_grad():
        module.cls_score.weight.mul_(100)  # scores that differ
    return module


def batch(gt_classes, seed=0):
    """RoI features and sampled proposals of two images, the second without objects."""
    generator = torch.Generator().manual_seed(seed)
    images = []
    for classes in (gt_classes, [K, K]):
        corner, size = torch.rand(2, len(classes), 2, generator=generator) * 40
        boxes = torch.cat([corner, corner + size + 5], dim=1)
        images.append(Instances(SIZE, proposal_boxes=Boxes(boxes), gt_classes=torch.tensor(classes)))
    images[0].gt_boxes = Boxes(images[0].proposal_boxes.tensor + torch.randn(len(gt_classes), 4, generator=generator))
    return torch.randn(len(gt_classes) + 2, CHANNELS, generator=generator), images


def losses_and_gradients(module, features, images):
    module.zero_grad()
    with EventStorage():
        losses = module.losses(module(features), images)
    sum(losses.values()).backward()
    return losses, {name: p.grad for name, p in module.named_parameters()}


class OwnCrossEntropy(nn.Module):
    """An outsider's loss: no base class, nothing asked for."""

    def forward(self, logits, labels):
        return F.cross_entropy(logits, labels, reduction="none")


# --- detectron2's ----------------------------------------------------------------------------------------------------


@each_case
@pytest.mark.parametrize(
    "loss",
    [None, CrossEntropy(), OwnCrossEntropy(), FocalLoss(gamma=0.0), GHMC(bins=1), SeesawLoss(p=0.0, q=0.0)]
    + [ClassBalanced(beta=0.0)],
    ids=lambda loss: type(loss).__name__,
)
def test_neutral_losses_are_detectron2_to_the_bit(classes, loss):
    weights = {"loss_cls": 0.7}
    ours = predictor(cls_loss=copy.deepcopy(loss), box_loss=SmoothL1(), loss_weight=weights)
    theirs = predictor(FastRCNNOutputLayers, loss_weight=weights)
    assert set(ours.state_dict()) - set(theirs.state_dict()) <= {"cls_loss.counts.values", "cls_loss.density.counts"}
    results = [losses_and_gradients(module, *batch(classes)) for module in (ours, theirs)]
    torch.testing.assert_close(*results, rtol=0, atol=0)
    with torch.no_grad():
        found = [module.inference(module(batch(classes)[0]), batch(classes)[1])[0] for module in (ours, theirs)]
    for mine, other in zip(*found):
        assert torch.equal(mine.scores, other.scores) and torch.equal(mine.pred_boxes.tensor, other.pred_boxes.tensor)


@pytest.mark.parametrize("num", [1, 2, 7, 100, 512, 1024, 4999])
def test_mean_of_unreduced_cross_entropies_is_torchs_to_the_bit(num):
    torch.manual_seed(num)
    logits, labels = (9 * torch.randn(num, 5)).requires_grad_(), torch.randint(5, (num,))
    means = [mean_loss(F.cross_entropy(logits, labels, reduction="none")), F.cross_entropy(logits, labels)]
    assert torch.equal(*means)
    assert torch.equal(*[torch.autograd.grad(mean, logits)[0] for mean in means])


def test_mean_of_nothing_is_a_connected_zero():
    logits = torch.zeros(0, 5, requires_grad=True)
    loss = mean_loss(F.cross_entropy(logits, torch.zeros(0, dtype=torch.int64), reduction="none"))
    loss.backward()
    assert loss == 0 and logits.grad.shape == (0, 5)


class MainsPredictor(FastRCNNOutputLayers):
    """What detectron2's main has beside 0.6's predictor, as far as the seat meets it."""

    def __init__(self, *args, use_sigmoid_ce=False, **kwargs):
        super().__init__(*args, **kwargs)
        self.use_sigmoid_ce = use_sigmoid_ce

    def losses(self, predictions, proposals):
        losses = super().losses(predictions, proposals)
        if self.use_sigmoid_ce:
            targets = F.one_hot(torch.cat([p.gt_classes for p in proposals]), K + 1)[:, :K].float()
            entropy = F.binary_cross_entropy_with_logits(predictions[0][:, :-1], targets, reduction="none")
            losses["loss_cls"] = torch.sum(entropy) / len(targets) * self.loss_weight.get("loss_cls", 1.0)
        return {**losses, "loss_new": losses["loss_cls"] * 0}

    def predict_probs(self, predictions, proposals):
        if not self.use_sigmoid_ce:
            return super().predict_probs(predictions, proposals)
        return predictions[0].sigmoid().split([len(p) for p in proposals])


@pytest.fixture
def on_main():
    BalancedFastRCNNOutputLayers.__bases__ = (MainsPredictor,)
    yield
    BalancedFastRCNNOutputLayers.__bases__ = (FastRCNNOutputLayers,)


@each_case
def test_the_sigmoid_loss_of_main_and_what_it_adds_stay(on_main, classes):
    ours, theirs = predictor(use_sigmoid_ce=True), predictor(MainsPredictor, use_sigmoid_ce=True)
    results = [losses_and_gradients(module, *batch(classes)) for module in (ours, theirs)]
    torch.testing.assert_close(*results, rtol=0, atol=0)
    predictions, images = ours(batch(classes)[0]), batch(classes)[1]
    torch.testing.assert_close(ours.predict_probs(predictions, images), theirs.predict_probs(predictions, images))
    focal = predictor(cls_loss=FocalLoss())
    assert "loss_new" in losses_and_gradients(focal, *batch(classes))[0]


@each_case
def test_the_sigmoid_component_is_mains_sigmoid_loss(on_main, classes):
    ours = predictor(cls_loss=CrossEntropy(form="sigmoid", prior=0.5))
    theirs = predictor(MainsPredictor, use_sigmoid_ce=True)
    results = [losses_and_gradients(module, *batch(classes)) for module in (ours, theirs)]
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-8)
    predictions, images = ours(batch(classes)[0]), batch(classes)[1]
    for mine, other in zip(ours.predict_probs(predictions, images), theirs.predict_probs(predictions, images)):
        assert torch.equal(mine[:, :K], other[:, :K])


IS_MAIN = "use_sigmoid_ce" in inspect.signature(FastRCNNOutputLayers.__init__).parameters


@pytest.mark.skipif(not IS_MAIN, reason="detectron2 0.6 has no sigmoid and federated losses")
@each_case
@pytest.mark.parametrize("federated", [False, True])
def test_detectron2_mains_own_losses_to_the_bit(classes, federated):
    options = dict(use_sigmoid_ce=True, use_fed_loss=federated, fed_loss_num_classes=2)
    options["get_fed_loss_cls_weights"] = lambda: torch.tensor([5.0, 1.0, 1.0])
    results = []
    for cls in (BalancedFastRCNNOutputLayers, FastRCNNOutputLayers):
        module = predictor(cls, **options)
        torch.manual_seed(3)  # the federated loss draws classes
        results.append(losses_and_gradients(module, *batch(classes)))
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_two_choices_of_the_loss_are_refused_naming_both(on_main):
    with pytest.raises(ValueError, match="cls_loss=FocalLoss.*use_sigmoid_ce"):
        predictor(cls_loss=FocalLoss(), use_sigmoid_ce=True)
    cfg = get_balanced_cfg()
    cfg.MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE = True
    cfg.MODEL.BALANCED.CLS_LOSS.NAME = "FocalLoss"
    with pytest.raises(ValueError, match="MODEL.BALANCED.CLS_LOSS.NAME: FocalLoss.*USE_SIGMOID_CE"):
        BalancedFastRCNNOutputLayers(cfg, ShapeSpec(channels=CHANNELS))
    cfg.MODEL.BALANCED.CLS_LOSS.NAME = "CrossEntropy"
    assert BalancedFastRCNNOutputLayers(cfg, ShapeSpec(channels=CHANNELS)).cls_loss is None


# --- what a loss is given --------------------------------------------------------------------------------------------


class Spy(nn.Module):
    """Keeps what it is called with; the loss of every RoI is 0.5."""

    def __init__(self, wants_ious=""):
        super().__init__()
        self.wants_ious = wants_ious
        self.calls, self.learned = [], []

    def forward(self, logits, labels, **more):
        self.calls.append((logits, labels, more))
        return logits.sum(dim=1) * 0 + 0.5

    def accumulate(self, logits, labels, **more):
        assert not torch.is_grad_enabled()
        self.learned.append((logits, labels, more))


def test_a_loss_gets_all_rois_and_its_mean_is_weighed():
    module = predictor(cls_loss=Spy(), loss_weight={"loss_cls": 3.0})
    features, images = batch(CASES["mixed"])
    losses, _ = losses_and_gradients(module, features, images)
    ((logits, labels, more),) = module.cls_loss.calls
    assert torch.equal(logits, module(features)[0]) and labels.tolist() == CASES["mixed"] + [K, K] and not more
    assert losses["loss_cls"].item() == pytest.approx(1.5)


@pytest.mark.parametrize("class_agnostic", [True, False])
@pytest.mark.parametrize("of", ["proposal", "predicted"])
def test_a_loss_that_wants_them_gets_ious_of_the_foreground(of, class_agnostic):
    module = predictor(cls_loss=Spy(of), cls_agnostic_bbox_reg=class_agnostic)
    with torch.no_grad():
        module.bbox_pred.weight.mul_(300)
    features, images = batch(CASES["mixed"])
    losses_and_gradients(module, features, images)
    ious = module.cls_loss.calls[0][2]["ious"]
    boxes = images[0].proposal_boxes
    if of == "predicted":
        boxes = Boxes(module.predict_boxes_for_gt_classes(module(features), images)[0])
    wanted = pairwise_iou(boxes, images[0].gt_boxes).diagonal() * (images[0].gt_classes < K)
    torch.testing.assert_close(ious, torch.cat([wanted, torch.zeros(2)]))
    assert not ious.requires_grad and (wanted > 0).sum() > 2


def test_a_loss_learns_from_training_passes_only():
    module = predictor(cls_loss=Spy())
    features, images = batch(CASES["mixed"])
    losses_and_gradients(module, features, images)
    assert len(module.cls_loss.learned) == 1 and torch.equal(module.cls_loss.learned[0][1], module.cls_loss.calls[0][1])
    module.class_losses(module(features), images)  # somebody wants to know
    with EventStorage(), torch.no_grad():
        module.losses(module(features), images)
    with EventStorage():
        module.eval().losses(module(features), images)
    assert len(module.cls_loss.learned) == 1


def test_class_losses_are_the_unreduced_loss():
    module = predictor(cls_loss=FocalLoss())
    features, images = batch(CASES["mixed"])
    rows = module.class_losses(module(features), images)
    assert rows.shape == (10,)
    torch.testing.assert_close(rows.mean(), losses_and_gradients(module, features, images)[0]["loss_cls"])


@pytest.mark.parametrize("make", [SeesawLoss, EQLv2, GHMC, ClassBalanced, QualityFocal])
def test_no_proposals_at_all(make):
    module = predictor(cls_loss=make())
    rows = module.class_losses(module(torch.zeros(0, CHANNELS)), [])
    mean_loss(rows).backward()
    assert rows.shape == (0,)


@pytest.mark.parametrize("make", [CrossEntropy, FocalLoss, SeesawLoss, EQLv2, GHMC, ClassBalanced, QualityFocal])
def test_mixed_precision(make):
    """Logits of half the digits: the losses are float32 and nearly those of float32 logits."""
    features, images = batch(CASES["mixed"])
    found = []
    for enabled in (True, False):
        module = predictor(cls_loss=make(), box_loss=SmoothL1())
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled), EventStorage():
            losses = module.losses(module(features), images)
        losses["loss_cls"].backward()
        assert losses["loss_cls"].dtype == torch.float32 and module.cls_score.weight.grad.isfinite().all()
        found.append(losses["loss_cls"].detach())
    torch.testing.assert_close(*found, rtol=0.02, atol=0.02)


# --- scores, bias, log -----------------------------------------------------------------------------------------------


def test_scores_are_the_losss_own():
    features, images = batch(CASES["mixed"])
    for loss in (CrossEntropy(form="sigmoid"), EQLv2(), FocalLoss(), OwnCrossEntropy()):
        module = predictor(cls_loss=loss)
        logits = module(features)[0]
        wanted = loss.scores(logits) if hasattr(loss, "scores") else logits.softmax(1)
        found = module.predict_probs(module(features), images)
        assert [len(each) for each in found] == [8, 2] and torch.equal(torch.cat(found), wanted)


def test_sigmoids_start_at_their_prior():
    module = predictor(cls_loss=FocalLoss(form="sigmoid", prior=0.02))
    torch.testing.assert_close(module.cls_score.bias[:K].sigmoid(), torch.full((K,), 0.02))
    assert module.cls_score.bias[K] == 0 and (predictor(cls_loss=FocalLoss()).cls_score.bias == 0).all()


def test_accuracy_in_the_log_counts_as_background_what_no_class_scores_half():
    module = predictor(cls_loss=CrossEntropy(form="sigmoid"))
    _, images = batch([0, 1, K])
    logits = torch.tensor([[2.0, -1, -1, 99], [-1, -1, -1, 99], [-1, -1, -1, -99], [3, -1, -1, 99], [-1, -1, -1, -99]])
    with EventStorage() as storage:
        module.losses((logits, torch.zeros(5, 4 * K)), images)
    found = {name: value for name, (value, _) in storage.latest().items()}
    assert found["fast_rcnn/cls_accuracy"] == pytest.approx(3 / 5)  # class 0, and two backgrounds
    assert found["fast_rcnn/false_negative"] == pytest.approx(1 / 2)


def test_yacs_names_the_loss_and_its_arguments():
    cfg = get_balanced_cfg()
    cfg.MODEL.BALANCED.CLS_LOSS.update({"NAME": "GHMC", "BINS": 5, "FORM": "sigmoid"})
    module = BalancedFastRCNNOutputLayers(cfg, ShapeSpec(channels=CHANNELS))
    assert isinstance(module.cls_loss, GHMC) and module.cls_loss.density.bins == 5 and module.cls_loss.form == "sigmoid"
    default = BalancedFastRCNNOutputLayers(get_balanced_cfg(), ShapeSpec(channels=CHANNELS)).cls_loss
    assert type(default) is CrossEntropy
