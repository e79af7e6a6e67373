"""The IoU family of box losses: formulas, other libraries' numbers, numbers by hand, nasty boxes."""

import math

import pytest
import torch
import torchvision
from detectron2.layers.losses import ciou_loss, diou_loss
from fvcore.nn import giou_loss
from reference import losses as reference

from d2_balanced.modeling.box_losses import BoundedIoU, CIoU, DIoU, EIoU, GIoU, IoULoss
from d2_balanced.modeling.box_losses.overlap import elementwise_iou
from d2_balanced.modeling.registry import BOX_LOSS_REGISTRY
from d2_balanced.modeling.spec import build_component

ALL = [IoULoss, BoundedIoU, GIoU, DIoU, CIoU, EIoU, lambda **kw: EIoU(gamma=0.5, **kw)]
each_loss = pytest.mark.parametrize("make", ALL)


def boxes(num=40, seed=0, dtype=torch.float64):
    """Pairs of boxes (num, 4): most overlap, some do not."""
    generator = torch.Generator().manual_seed(seed)
    corners, sizes = 40 * torch.rand(2, num, 2, generator=generator, dtype=dtype)
    target = torch.cat([corners, corners + sizes + 5], dim=1)
    shift = torch.randn(num, 4, generator=generator, dtype=dtype) * torch.linspace(0, 12, num, dtype=dtype)[:, None]
    pred = target + shift
    return torch.cat([pred[:, :2], torch.maximum(pred[:, 2:], pred[:, :2] + 1)], dim=1).requires_grad_(), target


def both(loss, pred, target):
    """The loss and its gradient."""
    pred = pred.detach().requires_grad_()
    value = loss(pred, target)
    return value.detach(), torch.autograd.grad(value.sum(), pred)[0]


@pytest.mark.parametrize(
    "loss, expected",
    [
        (IoULoss(), lambda b, t: -math.log(max(reference.iou(b, t), 1e-6))),
        (GIoU(), reference.giou),
        (DIoU(), reference.diou),
        (CIoU(), reference.ciou),
        (EIoU(), lambda b, t: reference.eiou(b, t, 0.0)),
        (EIoU(gamma=0.5), lambda b, t: reference.eiou(b, t, 0.5)),
        (BoundedIoU(), lambda b, t: reference.bounded_iou(b, t, 0.2)),
        (BoundedIoU(beta=0.0), lambda b, t: reference.bounded_iou(b, t, 0.0)),
        (BoundedIoU(beta=1.0), lambda b, t: reference.bounded_iou(b, t, 1.0)),
    ],
)
def test_formulas(loss, expected):
    pred, target = boxes()
    wanted = [expected(b, t) for b, t in zip(pred.tolist(), target.tolist())]
    torch.testing.assert_close(loss(pred, target), torch.tensor(wanted, dtype=torch.float64), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("loss, theirs", [(GIoU(), giou_loss), (DIoU(), diou_loss), (CIoU(), ciou_loss)])
def test_equal_what_detectron2s_own_key_chooses(loss, theirs):
    """giou_loss is fvcore's. Values are equal to the bit; gradients up to the order in which parts are added."""
    pred, target = boxes(dtype=torch.float32)
    (ours, our_gradient), (value, gradient) = both(loss, pred, target), both(theirs, pred, target)
    assert torch.equal(ours, value)
    torch.testing.assert_close(our_gradient, gradient, rtol=1e-6, atol=1e-8)


TORCHVISION = {
    "GIoU": torchvision.ops.generalized_box_iou_loss,
    "DIoU": torchvision.ops.distance_box_iou_loss,
    "CIoU": torchvision.ops.complete_box_iou_loss,
}


@pytest.mark.parametrize("loss", [GIoU(), DIoU(), CIoU()])
def test_losses_are_torchvisions(loss):
    """Touching boxes and boxes that do not overlap, too."""
    pred, target = boxes(dtype=torch.float32)
    with torch.no_grad():
        pred[0] = target[0] + torch.tensor([1.0, 0.0, 1.0, 0.0]) * (target[0, 2] - target[0, 0])
        pred[1] = target[1] + 500.0
        pred[2] = target[2]
    theirs = TORCHVISION[type(loss).__name__]
    (ours, our_gradient), (value, gradient) = (both(each, pred, target) for each in (loss, theirs))
    assert torch.equal(ours, value)
    torch.testing.assert_close(our_gradient, gradient, rtol=1e-6, atol=1e-8)


def test_ious_are_torchvisions():
    pred, target = boxes()
    torch.testing.assert_close(elementwise_iou(pred, target), torchvision.ops.box_iou(pred, target).diagonal())


def test_by_hand():
    """A box of 2 x 2 in one of 4 x 2 at its left end: IoU 1/2, centres 1 apart, around both 4 x 2."""
    pred, target = torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[0.0, 0.0, 4.0, 2.0]])
    found = {type(loss).__name__: loss(pred, target).squeeze(0).tolist() for loss in (make() for make in ALL[:-1])}
    aspects = 4 / math.pi**2 * (math.atan(2) - math.atan(1)) ** 2
    assert found["IoULoss"] == pytest.approx(math.log(2))
    assert found["GIoU"] == pytest.approx(0.5)
    assert found["DIoU"] == pytest.approx(0.5 + 1 / 20)
    assert found["CIoU"] == pytest.approx(0.5 + 1 / 20 + aspects**2 / (0.5 + aspects), rel=1e-5)
    assert found["EIoU"] == pytest.approx(0.5 + 1 / 20 + 4 / 16)
    # x: (4 - 2) / (4 + 2) = 1/3, w: 2 / 4; the Huber loss of 2/3 and 1/2 with beta 0.2; y and h agree
    assert found["BoundedIoU"] == pytest.approx([2 / 3 - 0.1, 0, 1 / 2 - 0.1, 0])


@each_loss
def test_equal_boxes_have_no_loss(make):
    _, target = boxes(dtype=torch.float32)
    value, gradient = both(make(), target, target)
    assert value.abs().max() < 1e-5 and gradient.isfinite().all()


@each_loss
@pytest.mark.parametrize(
    "pred",
    [(100.0, 100.0, 120.0, 110.0), (10.0, 10.0, 10.0, 10.0), (-1e4, -1e4, 1e4, 1e4), (14.0, 0.0, 20.0, 5.0)],
    ids=["far away", "no area", "huge", "touching"],
)
def test_finite_for_nasty_boxes(make, pred):
    pred, target = torch.tensor([pred]), torch.tensor([[2.0, 3.0, 14.0, 19.0]])
    if pred[0, 0] == pred[0, 2]:
        pred = pred + torch.tensor([0.0, 0.0, 1e-6, 1e-6])  # a decoded size is positive, if ever so small
    value, gradient = both(make(), pred, target)
    assert value.isfinite().all() and gradient.isfinite().all() and (value >= 0).all()


@pytest.mark.parametrize("cls", [GIoU, DIoU, CIoU, EIoU, BoundedIoU])
def test_boxes_that_do_not_overlap_are_drawn_to_the_target(cls):
    pred, target = torch.tensor([[20.0, 0.0, 30.0, 10.0]]), torch.tensor([[0.0, 0.0, 12.0, 10.0]])
    _, gradient = both(cls(), pred, target)
    moved = gradient[0, [0, 2]].sum()
    assert moved > 0 or cls is BoundedIoU  # whose bound of a centre is 0 so far away


@each_loss
def test_keeps_graph_without_boxes(make):
    pred = torch.zeros(0, 4, requires_grad=True)
    loss = make()(pred, torch.zeros(0, 4))
    assert len(loss) == 0
    loss.sum().backward()
    assert pred.grad.shape == (0, 4)


@each_loss
def test_loss_weight_and_no_state(make):
    pred, target = boxes()
    torch.testing.assert_close(make(loss_weight=2.5)(pred, target), 2.5 * make()(pred, target))
    assert not make().state_dict()


@pytest.mark.parametrize(
    "cls, options, named",
    [
        (GIoU, dict(loss_weight=-1.0), "loss_weight"),
        (IoULoss, dict(eps=0.0), "eps"),
        (BoundedIoU, dict(beta=-0.1), "beta"),
        (EIoU, dict(gamma=-0.5), "gamma"),
    ],
)
def test_bad_settings_are_refused_by_name(cls, options, named):
    with pytest.raises(ValueError, match=f"{cls.__name__}: {named} must be .*[,;] got"):
        cls(**options)
    node = {"NAME": cls.__name__, **{name.upper(): value for name, value in options.items()}}
    said = rf"MODEL.BALANCED.BOX_LOSS(\.{named.upper()}: must|(\.\w+)?: {cls.__name__}: {named})"
    with pytest.raises(ValueError, match=said):
        build_component(BOX_LOSS_REGISTRY, node, "MODEL.BALANCED.BOX_LOSS")
