"""The predictor with pluggable losses: detectron2's at the defaults, sums and normalisation, misuse."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from d2_balanced.config import get_balanced_cfg
from d2_balanced.modeling.box_losses import BalancedL1, SmoothL1
from d2_balanced.modeling.box_predictor import BalancedFastRCNNOutputLayers

K, CHANNELS = 3, 8


def predictor(cls, seed=0, **options):
    torch.manual_seed(seed)
    transform = Box2BoxTransform((10.0, 10.0, 5.0, 5.0))
    return cls(ShapeSpec(channels=CHANNELS), box2box_transform=transform, num_classes=K, **options)


def batch(gt_classes, seed=0):
    """RoI features (R, CHANNELS) and sampled proposals of one image."""
    generator = torch.Generator().manual_seed(seed)
    gt_classes = torch.tensor(gt_classes, dtype=torch.int64)
    corner, size = torch.rand(2, len(gt_classes), 2, generator=generator) * 40
    proposals = Instances((100, 100), proposal_boxes=Boxes(torch.cat([corner, corner + size + 5], dim=1)))
    shift = torch.randn(len(gt_classes), 4, generator=generator)
    proposals.gt_boxes = Boxes(proposals.proposal_boxes.tensor + shift)
    proposals.gt_classes = gt_classes
    return torch.randn(len(gt_classes), CHANNELS, generator=generator), [proposals]


def losses_and_gradients(module, features, proposals):
    module.zero_grad()
    with EventStorage():
        losses = module.losses(module(features), proposals)
    sum(losses.values()).backward()
    return losses, {name: p.grad for name, p in module.named_parameters()}


CASES = {
    "mixed": [0, 1, 2, K, K, K, 2, K],
    "no foreground": [K, K, K],
    "one proposal": [1],
    "one background": [K],
}


@pytest.mark.parametrize("classes", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("class_agnostic", [False, True])
@pytest.mark.parametrize("beta", [0.0, 0.11, 1.0, 2.0])
def test_smooth_l1_is_detectron2_to_the_bit(classes, class_agnostic, beta):
    options = dict(cls_agnostic_bbox_reg=class_agnostic, loss_weight={"loss_box_reg": 2.0})
    theirs = predictor(FastRCNNOutputLayers, smooth_l1_beta=beta, **options)
    ours = predictor(BalancedFastRCNNOutputLayers, box_loss=SmoothL1(beta), **options)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    (losses, grads), (losses_theirs, grads_theirs) = (losses_and_gradients(m, *batch(classes)) for m in (ours, theirs))
    assert list(losses) == list(losses_theirs)
    for mine, other in ((losses, losses_theirs), (grads, grads_theirs)):
        torch.testing.assert_close(mine, other, rtol=0, atol=0)


@pytest.mark.parametrize("loss_type", ["smooth_l1", "giou", "diou", "ciou"])
def test_without_a_box_loss_it_is_detectron2(loss_type):
    ours = predictor(BalancedFastRCNNOutputLayers, box_reg_loss_type=loss_type)
    theirs = predictor(FastRCNNOutputLayers, box_reg_loss_type=loss_type)
    losses, grads = losses_and_gradients(ours, *batch(CASES["mixed"]))
    losses_theirs, grads_theirs = losses_and_gradients(theirs, *batch(CASES["mixed"]))
    torch.testing.assert_close(losses, losses_theirs, rtol=0, atol=0)
    torch.testing.assert_close(grads, grads_theirs, rtol=0, atol=0)


def test_box_loss_gets_foreground_deltas_of_the_gt_class_and_is_normalised_by_all_rois():
    seen = []

    def box_loss(pred, target):
        seen.append((pred.detach(), target))
        return (pred - target).abs() * 0 + 0.5

    module = predictor(BalancedFastRCNNOutputLayers, box_loss=box_loss)
    features, (proposals,) = batch(CASES["mixed"])
    scores, deltas = module(features)
    with EventStorage():
        losses = module.losses((scores, deltas), [proposals])
    pred, target = seen[0]
    foreground = [0, 1, 2, 6]
    for row, roi in enumerate(foreground):
        gt_class = proposals.gt_classes[roi]
        torch.testing.assert_close(pred[row], deltas[roi, 4 * gt_class : 4 * gt_class + 4])
        one = module.box2box_transform.get_deltas(
            proposals.proposal_boxes.tensor[roi : roi + 1], proposals.gt_boxes.tensor[roi : roi + 1]
        )
        torch.testing.assert_close(target[row : row + 1], one)
    assert losses["loss_box_reg"].item() == pytest.approx(0.5 * 4 * len(foreground) / len(proposals))


@pytest.mark.parametrize("classes", CASES.values(), ids=CASES.keys())
def test_balanced_l1_trains_in_every_case(classes):
    module = predictor(BalancedFastRCNNOutputLayers, box_loss=BalancedL1())
    losses, gradients = losses_and_gradients(module, *batch(classes))
    assert all(torch.isfinite(x).all() for x in [*losses.values(), *gradients.values()])


def test_no_proposals_at_all():
    module = predictor(BalancedFastRCNNOutputLayers, box_loss=BalancedL1())
    _, deltas = module(torch.zeros(0, CHANNELS))
    loss = module.box_reg_loss(torch.zeros(0, 4), torch.zeros(0, 4), deltas, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss == 0


@pytest.mark.parametrize("cls", [FastRCNNOutputLayers, BalancedFastRCNNOutputLayers])
def test_without_proposals_no_event_storage_is_asked_for(cls):
    module, (features, proposals) = predictor(cls), batch([])
    losses = module.losses(module(features), proposals)
    sum(losses.values()).backward()
    assert list(losses.values()) == [0, 0]


def test_a_loss_that_wants_them_gets_the_predictors_weights_and_classes():
    class Wants(SmoothL1):
        def adopt(self, bbox_reg_weights, num_classes):
            self.adopted = (tuple(bbox_reg_weights), num_classes)

    assert predictor(BalancedFastRCNNOutputLayers, box_loss=Wants()).box_loss.adopted == ((10.0, 10.0, 5.0, 5.0), K)


# --- configuration ---------------------------------------------------------------------------------------------------


def from_yacs(smooth_l1_beta=0.3, **box_loss):
    cfg = get_balanced_cfg()
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = K
    cfg.MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA = smooth_l1_beta
    cfg.MODEL.BALANCED.BOX_LOSS.update(box_loss)
    return cfg


def test_yacs_default_takes_detectron2s_beta():
    module = BalancedFastRCNNOutputLayers(from_yacs(), ShapeSpec(channels=CHANNELS))
    assert isinstance(module.box_loss, SmoothL1) and module.box_loss.beta == 0.3


def test_yacs_balanced_l1_keeps_its_own_beta():
    cfg = from_yacs(smooth_l1_beta=0.0, NAME="BalancedL1", GAMMA=1.0)
    module = BalancedFastRCNNOutputLayers(cfg, ShapeSpec(channels=CHANNELS))
    assert module.box_loss.settings == {"alpha": 0.5, "gamma": 1.0, "beta": 1.0, "form": "scaled"}


def test_a_beta_of_detectron2_that_the_box_loss_would_not_read_is_refused():
    with pytest.raises(ValueError, match="smooth_l1_beta=0.3.*box_loss=BalancedL1"):
        BalancedFastRCNNOutputLayers(from_yacs(NAME="BalancedL1"), ShapeSpec(channels=CHANNELS))


def test_yacs_iou_loss_is_detectron2s_own():
    cfg = from_yacs()
    cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE = "giou"
    assert BalancedFastRCNNOutputLayers(cfg, ShapeSpec(channels=CHANNELS)).box_loss is None


@pytest.mark.parametrize("box_loss", [dict(NAME="BalancedL1"), dict(LOSS_WEIGHT=2.0)])
def test_two_choices_of_the_loss_are_refused_naming_both(box_loss):
    cfg = from_yacs(**box_loss)
    cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE = "giou"
    with pytest.raises(ValueError, match="MODEL.BALANCED.BOX_LOSS.*MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE: giou"):
        BalancedFastRCNNOutputLayers(cfg, ShapeSpec(channels=CHANNELS))
    with pytest.raises(ValueError, match="box_loss=BalancedL1.*box_reg_loss_type='giou'"):
        predictor(BalancedFastRCNNOutputLayers, box_loss=BalancedL1(), box_reg_loss_type="giou")
