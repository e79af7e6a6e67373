"""Components that weigh or choose samples, against references that go from RoI to RoI, and numbers by hand."""

import copy
import math

import pytest
import roi_heads_tools as h
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes, Instances
from reference import sample_weights as reference
from torch.nn import functional as F

from d2_balanced.modeling.box_predictor import BalancedFastRCNNOutputLayers
from d2_balanced.modeling.cls_losses import CrossEntropy
from d2_balanced.modeling.sample_weights import (
    OHEM,
    PISA,
    ClassBalancedRoIs,
    IoUBalanced,
    RoILosses,
    RoIWeights,
    SamplingFree,
)
from d2_balanced.modeling.sample_weights.ranks import hierarchical_local_rank, local_rank, unsuppressed
from d2_balanced.modeling.stage_view import StageView
from d2_balanced.utils.errors import Refusal

K = 3
OBJECTS = {"many": (4, 7, 1), "an empty image": (0, 5), "no objects": (0, 0), "one object": (1,)}


def step_of(objects, num=60, seed=3, **changes):
    """The view of a step of small heads, and the losses of its branch."""
    heads, targets = h.build(h.tiny_cfg(**changes)), h.targets(objects)
    _, (view,) = h.watched_step(heads, h.features(len(objects)), h.proposals(targets, num, seed), targets)
    predictor = heads.branches[0].predictor(0)
    return view, predictor.roi_losses(view.predictions[0], view.samples[0])


each_batch = pytest.mark.parametrize("objects", OBJECTS.values(), ids=OBJECTS)


class Rows:
    """What the reference is told of a step: plain lists."""

    def __init__(self, view, losses):
        samples = view.samples[0]
        self.labels = losses.labels.tolist()
        self.positive = [label < K for label in self.labels]
        self.cls, self.box = losses.cls.tolist(), losses.box.tolist()
        self.ious = losses.ious("predicted").tolist()
        scores = losses.scores()
        self.best, classes = (values.tolist() for values in scores[:, :-1].max(dim=1))
        self.own = [scores[i, label].item() for i, label in enumerate(self.labels)]
        self.boxes = losses.predicted_boxes(torch.tensor(classes)).tolist()
        self.image = [i for i, image in enumerate(samples) for _ in range(len(image))]
        self.objects = [(i, m) for i, image in enumerate(samples) for m in image.matched_idxs.tolist()]

    def of(self, side):
        return [i for i, positive in enumerate(self.positive) if positive == side]


# --- ranks -----------------------------------------------------------------------------------------------------------


def test_ranks_by_hand():
    """Two objects of a class (IoUs 0.9, 0.6, 0.5 and 0.8, 0.7), one of another: first 0.9 and 0.8, then 0.7 and 0.6."""
    values = torch.tensor([0.6, 0.9, 0.8, 0.5, 0.7, 0.95])
    groups, classes = torch.tensor([0, 0, 1, 0, 1, 2]), torch.tensor([0, 0, 0, 0, 0, 2])
    assert local_rank(values, groups).tolist() == [1, 0, 0, 2, 1, 0]
    assert hierarchical_local_rank(values, groups, classes).tolist() == [3, 0, 1, 4, 2, 0]


def test_ranks_are_the_references():
    generator = torch.Generator().manual_seed(0)
    for num in (0, 1, 2, 50):
        values = torch.rand(num, generator=generator)
        groups, classes = torch.randint(6, (num,), generator=generator), torch.randint(3, (num,), generator=generator)
        ranks = hierarchical_local_rank(values, groups, classes).tolist()
        assert ranks == reference.hierarchical_local_ranks(values.tolist(), groups.tolist(), classes.tolist())


def test_boxes_of_other_groups_do_not_suppress():
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0]] * 4 + [[1e4, 0.0, 1e4 + 3, 7.0]])
    scores, groups = torch.tensor([0.1, 0.4, 0.3, 0.2, 0.0]), torch.tensor([0, 0, 1, 2, 0])
    assert unsuppressed(boxes, scores, groups, 0.5).tolist() == [False, True, True, True, True]
    assert unsuppressed(boxes[:0], scores[:0], groups[:0], 0.5).tolist() == []


# --- OHEM ------------------------------------------------------------------------------------------------------------


@each_batch
@pytest.mark.parametrize("fraction", [False, True])
@pytest.mark.parametrize("nms_thresh", [1.0, 0.7, 0.3])
def test_ohem_is_the_reference(objects, fraction, nms_thresh):
    view, losses = step_of(objects)
    rows = Rows(view, losses)
    drawn = OHEM(nms_thresh=nms_thresh, fraction=fraction).choose(view, losses, 8, 0.25)
    assert len(drawn) == len(objects)
    for image, (positives, negatives) in enumerate(drawn):
        of_image = [i for i, each in enumerate(rows.image) if each == image]
        hardness = [rows.cls[i] + rows.box[i] for i in of_image]
        boxes = view.samples[0][image].proposal_boxes.tensor.tolist()
        positive = [rows.positive[i] for i in of_image]
        wanted = reference.hardest(hardness, boxes, positive, 8, nms_thresh, int(8 * 0.25) if fraction else None)
        assert positives.tolist() == sorted(i for i in wanted if positive[i])
        assert negatives.tolist() == sorted(i for i in wanted if not positive[i])


def test_ohem_of_the_batch_takes_the_hardest_of_all_images():
    view, losses = step_of(OBJECTS["many"])
    drawn = OHEM(num_per_image=5, nms_thresh=1.0, per="batch", losses="cls").choose(view, losses, 99, 0.25)
    hardest = losses.cls.sort(descending=True)[1][:15].tolist()
    first = [0]
    for image in view.samples[0]:
        first.append(first[-1] + len(image))
    chosen = [first[n] + row for n, pair in enumerate(drawn) for row in torch.cat(pair).tolist()]
    assert sorted(chosen) == sorted(hardest)


def test_ohem_by_hand():
    """Cross entropies of ln 4, ln 2, ln 2 and 0 and a box loss of 1 for the third; the first two are the same box."""
    boxes = Boxes(torch.tensor([[x, 0.0, x + 8.0, 8.0] for x in (0.0, 0.0, 20.0, 40.0)]))
    samples = [Instances((64, 64), proposal_boxes=boxes, gt_classes=torch.tensor([1, 1, 0, 1]))]
    losses = made(samples, torch.tensor([math.log(4), math.log(2), math.log(2), 0.0]), torch.tensor([2]), torch.ones(1))
    view = StageView(0, [], [samples], [samples], [None], [None])

    def chosen(**settings):
        ((positives, negatives),) = OHEM(**settings).choose(view, losses, 2, 0.5)
        return positives.tolist(), negatives.tolist()

    assert chosen() == ([2], [0])
    assert chosen(losses="cls", nms_thresh=1.0) == ([], [0, 1])  # of equals the earlier one
    assert chosen(num_per_image=3) == ([2], [0, 3])  # the second is the first again
    assert chosen(num_per_image=3, nms_thresh=1.0) == ([2], [0, 1])
    assert chosen(num_per_image=1) == ([2], [])


def made(samples, cls, foreground, box):
    """Losses that are given, of a predictor of one class."""
    predictor = predictor_of(1)
    labels = torch.cat([image.gt_classes for image in samples])
    predictions = torch.zeros(len(labels), 2), torch.zeros(len(labels), 4)
    return RoILosses(predictor, predictions, samples, labels, cls, foreground, box)


def predictor_of(num_classes, **options):
    transform = Box2BoxTransform((10.0, 10.0, 5.0, 5.0))
    return BalancedFastRCNNOutputLayers(
        ShapeSpec(channels=4), box2box_transform=transform, num_classes=num_classes, **options
    )


# --- PISA ------------------------------------------------------------------------------------------------------------


@each_batch
@pytest.mark.parametrize("gammas, betas", [((2.0, 0.5), (0.0, 0.0)), ((1.0, 2.0), (0.2, 0.4))])
def test_isr_is_the_reference(objects, gammas, betas):
    view, losses = step_of(objects)
    rows = Rows(view, losses)
    pisa = PISA(gammas[0], betas[0], gammas[1], betas[1], nms_thresh=0.3, carl_weight=0)
    weights, of_boxes = pisa.weigh(view, losses)
    assert of_boxes is None and not weights.requires_grad
    cluster = {}
    for image in range(len(objects)):
        negatives = [i for i in rows.of(False) if rows.image[i] == image]
        found = reference.clusters([rows.boxes[i] for i in negatives], [rows.best[i] for i in negatives], 0.3)
        cluster.update({i: negatives[j] for i, j in zip(negatives, found)})
    assert not rows.of(False) or len(set(cluster.values())) < len(cluster), "nothing is suppressed"
    sides = (True, rows.ious, dict(enumerate(rows.objects))), (False, rows.best, cluster)
    for n, (side, values, groups) in enumerate(sides):
        own = rows.of(side)
        taken = [[each[i] for i in own] for each in (values, groups, rows.labels, rows.cls)]
        wanted = reference.isr(*taken, gammas[n], betas[n])
        assert weights[own].tolist() == pytest.approx(wanted, rel=1e-4)
        assert (weights * losses.cls)[own].sum().item() == pytest.approx(losses.cls[own].sum().item(), rel=1e-5)


def test_isr_by_hand():
    """Two positives of one object: importances 1 and 1/2, weights 1 and 1/4 with gamma 2; of equal losses 8/5, 2/5."""
    gt = torch.tensor([[0.0, 0.0, 10.0, 10.0]] * 2)
    proposals = torch.tensor([[0.0, 0.0, 10.0, 8.0], [0.0, 0.0, 10.0, 6.0]])
    samples = [
        Instances(
            (64, 64),
            proposal_boxes=Boxes(proposals),
            gt_boxes=Boxes(gt),
            gt_classes=torch.tensor([0, 0]),
            matched_idxs=torch.tensor([0, 0]),
        )
    ]
    losses = made(samples, torch.full((2,), math.log(2)), torch.tensor([0, 1]), torch.ones(2, 4))
    view = StageView(0, [Instances((64, 64), gt_boxes=Boxes(gt[:1]))], [samples], [samples], [None], [None])
    assert PISA().weigh(view, losses).cls.tolist() == pytest.approx([1.6, 0.4])


@each_batch
def test_carl_is_the_reference(objects):
    view, losses = step_of(objects)
    rows = Rows(view, losses)
    weights = PISA(carl_weight=0.5, carl_k=2.0, carl_b=0.3).weigh(view, losses).box
    own = rows.of(True)
    wanted = [1 + 0.5 * c for c in reference.carl([rows.own[i] for i in own], 2.0, 0.3)]
    assert weights[own].tolist() == pytest.approx(wanted, rel=1e-4)
    assert weights[rows.of(False)].tolist() == [1.0] * len(rows.of(False))


def test_gradients_through_the_weights():
    """ISR's weights have none. CARL's reach the scores: a RoI with a larger box loss has its class's score lowered."""
    view, losses = step_of(OBJECTS["many"])
    logits = losses.predictions[0].detach().requires_grad_()
    predictions = logits, losses.predictions[1].detach()
    losses = losses._replace(predictions=predictions, box_elements=losses.box_elements.detach())
    weights = PISA().weigh(view, losses)
    assert not weights.cls.requires_grad
    (gradient,) = torch.autograd.grad((weights.box * losses.box).sum(), logits)
    positive, box = losses.positive, losses.box
    of_class = gradient.gather(1, losses.labels[:, None])[:, 0]
    assert (gradient[~positive] == 0).all() and (of_class[positive] != 0).all()
    # d/dp_i of sum(c L) is positive, and the score falls, where L_i is above the mean that c weighs.
    v = 0.8 * losses.scores().gather(1, losses.labels[:, None])[:, 0].detach() + 0.2
    mean = (v * box)[positive].sum() / v[positive].sum()
    assert torch.equal(of_class[positive] > 0, box[positive] > mean)


# --- others ----------------------------------------------------------------------------------------------------------


@each_batch
def test_iou_balanced_is_the_formula(objects):
    view, losses = step_of(objects)
    rows = Rows(view, losses)
    found = IoUBalanced(eta=1.5, lam=0.5).weigh(view, losses)
    own = rows.of(True)
    for weights, each, exponent in ((found.cls, rows.cls, 1.5), (found.box, rows.box, 0.5)):
        powers = {i: rows.ious[i] ** exponent for i in own}
        scale = sum(each[i] for i in own) / max(sum(powers[i] * each[i] for i in own), 1e-12)
        assert weights[own].tolist() == pytest.approx([powers[i] * scale for i in own], rel=1e-4)
        assert weights[rows.of(False)].tolist() == [1.0] * len(rows.of(False)) and not weights.requires_grad


@each_batch
def test_of_box_losses_below_0_the_sizes_are_kept_and_guide(objects):
    """The KL loss of sure boxes is below 0: a scale by the plain sum would turn gradients round, or have no bound."""
    view, losses = step_of(objects)
    losses = losses._replace(box_elements=losses.box_elements - 1.5 * losses.box_elements.mean())
    rows = Rows(view, losses)
    own, sizes = rows.of(True), [abs(each) for each in rows.box]
    assert not own or sum(rows.box) < 0
    powers = {i: rows.ious[i] ** 0.5 for i in own}
    scale = sum(sizes[i] for i in own) / max(sum(powers[i] * sizes[i] for i in own), 1e-12)
    weights = IoUBalanced(eta=0.0, lam=0.5).weigh(view, losses).box
    assert weights[own].tolist() == pytest.approx([powers[i] * scale for i in own], rel=1e-4)
    weights = SamplingFree(guide=2.0).weigh(view, losses).cls
    wanted = 2 * sum(sizes) / len(own) if own else sum(rows.cls) / len(rows.cls)
    assert (weights * losses.cls).mean().item() == pytest.approx(wanted, rel=1e-5) and (weights >= 0).all()


@each_batch
def test_class_balanced_rois_count_every_class_the_same(objects):
    view, losses = step_of(objects)
    rows = Rows(view, losses)
    weights = ClassBalancedRoIs().weigh(view, losses)
    assert weights.cls is weights.box
    own = rows.of(True)
    labels = [rows.labels[i] for i in own]
    wanted = [len(own) / (len(set(labels)) * labels.count(label)) for label in labels]  # the probability, times F
    assert weights.cls[own].tolist() == pytest.approx(wanted)
    assert weights.cls[rows.of(False)].tolist() == [1.0] * len(rows.of(False))
    assert ClassBalancedRoIs(boxes=False).weigh(view, losses).box is None


@each_batch
@pytest.mark.parametrize("divide_by", ["foreground", "rois"])
def test_sampling_free_guides_the_classification(objects, divide_by):
    view, losses = step_of(objects)
    rows = Rows(view, losses)
    weights = SamplingFree(guide=2.0, divide_by=divide_by).weigh(view, losses)
    of_boxes = torch.ones(len(rows.box)) if weights.box is None else weights.box
    num, num_fg = len(rows.cls), sum(rows.positive)
    box = (of_boxes * losses.box).sum().item() / num
    assert box == pytest.approx(sum(rows.box) / (max(num_fg, 1) if divide_by == "foreground" else num), rel=1e-5)
    cls = (weights.cls * losses.cls).sum().item() / num
    assert cls == pytest.approx(2 * box if num_fg else sum(rows.cls) / num, rel=1e-5)
    assert not weights.cls.requires_grad


@pytest.mark.parametrize("prior", [0.01, 0.3])
def test_initial_bias_is_optimal(prior):
    """Of all constant answers, that of the bias has the lowest expected cross entropy, where the prior is the share."""
    predictor = predictor_of(5)
    SamplingFree(prior=prior).prepare(predictor)
    shares = torch.tensor([prior / 5] * 5 + [1 - prior])
    bias = predictor.cls_score.bias.detach().requires_grad_()
    assert bias.softmax(0).tolist() == pytest.approx(shares.tolist(), rel=1e-5)
    loss = -(shares * bias.log_softmax(0)).sum()
    assert torch.autograd.grad(loss, bias)[0].abs().max() < 1e-7
    sigmoids = predictor_of(5, cls_loss=CrossEntropy("sigmoid"))
    SamplingFree(prior=prior).prepare(sigmoids)
    assert sigmoids.cls_score.bias[:-1].sigmoid().tolist() == pytest.approx([prior / 5] * 5, rel=1e-5)
    with pytest.raises(Refusal, match="prior=0.1 of cls_loss=CrossEntropy.*both set the classifier's bias"):
        SamplingFree().prepare(predictor_of(5, cls_loss=CrossEntropy("sigmoid", prior=0.1)))
    unchanged = predictor_of(5)
    SamplingFree(prior=0.0).prepare(unchanged)
    assert unchanged.cls_score.bias.tolist() == [0.0] * 6


# --- the predictor ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"MODEL__ROI_BOX_HEAD__BBOX_REG_LOSS_TYPE": "giou"}, h.AGNOSTIC], ids=str)
def test_losses_of_every_roi_sum_to_the_predictors(options):
    view, losses = step_of(OBJECTS["many"], **options)
    predictor = losses.predictor
    with torch.no_grad(), h.EventStorage():
        summed = predictor.losses(view.predictions[0], view.samples[0])
    assert losses.cls.mean().item() == pytest.approx(summed["loss_cls"].item(), rel=1e-6)
    assert (losses.box.sum() / len(losses.labels)).item() == pytest.approx(summed["loss_box_reg"].item(), rel=1e-6)
    assert (losses.box[~losses.positive] == 0).all() and (losses.box[losses.positive] > 0).all()


def test_weighed_losses_are_the_weighed_means():
    view, losses = step_of(OBJECTS["many"])
    generator = torch.Generator().manual_seed(0)
    cls, box = torch.rand(2, len(losses.labels), generator=generator)
    predictor = copy.copy(losses.predictor)
    predictor.loss_weight = {"loss_cls": 0.5, "loss_box_reg": 3.0}
    with torch.no_grad(), h.EventStorage() as storage:
        found = predictor.losses(view.predictions[0], view.samples[0], lambda _: RoIWeights(cls, box))
        logged = storage.latest()
        predictor.losses(view.predictions[0], view.samples[0])
    assert logged == storage.latest() and "fast_rcnn/cls_accuracy" in logged
    assert found["loss_cls"].item() == pytest.approx(0.5 * (cls * losses.cls).mean().item(), rel=1e-5)
    assert found["loss_box_reg"].item() == pytest.approx(3 * (box * losses.box).mean().item(), rel=1e-5)


def test_a_predictor_without_a_loss_component_has_detectron2s():
    boxes = Boxes(torch.tensor([[0.0, 0.0, 9.0, 9.0]]))
    images = [Instances((64, 64), proposal_boxes=boxes, gt_classes=torch.tensor([1]))]
    images[0].gt_boxes = Boxes(torch.tensor([[0.0, 0.0, 9.0, 12.0]]))
    predictor = predictor_of(2, smooth_l1_beta=0.5)
    assert predictor.cls_loss is None and predictor.box_loss is None
    predictions = torch.randn(1, 3), torch.randn(1, 8)
    losses = predictor.roi_losses(predictions, images)
    with h.EventStorage():
        summed = predictor.losses(predictions, images)
    cross_entropy = F.cross_entropy(predictions[0], torch.tensor([1]))
    assert losses.cls.tolist() == [summed["loss_cls"].item()] == [cross_entropy.item()]
    assert losses.box.sum().item() == pytest.approx(summed["loss_box_reg"].item())


@pytest.mark.parametrize(
    "component, settings, message",
    [
        (OHEM, {"num_per_image": 0}, "OHEM: num_per_image must be 1 or more"),
        (OHEM, {"nms_thresh": 0.0}, "OHEM: nms_thresh must be above 0"),
        (OHEM, {"candidates": "some"}, "OHEM: candidates must be one of"),
        (OHEM, {"per": "class"}, "OHEM: per must be one of"),
        (OHEM, {"losses": "box"}, "OHEM: losses must be one of"),
        (PISA, {"positive_gamma": -1.0}, "PISA: positive_gamma must be 0 or more"),
        (PISA, {"carl_b": 1.5}, "PISA: carl_b must be from 0 to 1"),
        (PISA, {"ious": "none"}, "PISA: ious must be one of"),
        (IoUBalanced, {"eta": -0.5}, "IoUBalanced: eta must be 0 or more"),
        (ClassBalancedRoIs, {"power": 2.0}, "ClassBalancedRoIs: power must be from 0 to 1"),
        (SamplingFree, {"guide": -1.0}, "SamplingFree: guide must be 0 or more"),
        (SamplingFree, {"prior": 1.0}, "SamplingFree: prior must be 0 or more and below 1"),
        (SamplingFree, {"divide_by": "all"}, "SamplingFree: divide_by must be one of"),
    ],
)
def test_values_out_of_range_are_refused(component, settings, message):
    with pytest.raises(ValueError, match=message):
        component(**settings)
