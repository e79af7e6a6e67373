"""The maths of R3-CNN's loop, by hand from the modules' own layers: scores, refined boxes, gradients, losses, masks."""

import pytest
import torch
from detectron2.structures import Boxes, Instances, pairwise_iou
from detectron2.utils.events import EventStorage

import roi_heads_tools as h
from roi_heads_tools import AGNOSTIC, FLOW

CASCADE = {**AGNOSTIC, **h.CASCADE}
IOUS = (0.5, 0.6, 0.7)  # of both by default


def loop(**arguments):
    """Changes of the config for ``RecursiveStages``, with its defaults where nothing is given."""
    return {**AGNOSTIC, "MODEL__BALANCED__STAGES": {"NAME": "RecursiveStages", **arguments}}


def batch(masks=False):
    targets = h.targets((4, 7), masks=masks)
    return h.features(2), h.proposals(targets), targets


def maps_of(heads, feats):
    return [feats[f] for f in heads.box_in_features]


def boxes_by_hand(heads, deltas, boxes, classes):
    """The box that each row's class is refined to, not clipped; a class-agnostic head has one for all of them."""
    decoded = heads.box_predictor.box2box_transform.apply_deltas(deltas, boxes).view(len(boxes), -1, 4)
    return decoded[torch.arange(len(boxes)), classes if decoded.shape[1] > 1 else torch.zeros_like(classes)]


def clipped(boxes):
    boxes = Boxes(boxes.clone())
    boxes.clip(h.IMAGE_SIZE)
    return boxes


class Recorder:
    """What every stage of the main branch had in a training step."""

    def __init__(self, views):
        self.labeled = [view.labeled[0] for view in views]
        self.samples = [view.samples[0] for view in views]
        self.predictions = [[each.detach() for each in view.predictions[0]] for view in views]

    def refined(self, heads, stage):
        """By hand: the boxes that a stage refined its samples to, without empty ones and appended objects."""
        counts = [len(samples) for samples in self.samples[stage]]
        predictions = zip(*(each.split(counts) for each in self.predictions[stage]))
        result = []
        for (logits, deltas), samples in zip(predictions, self.samples[stage]):
            classes = torch.where(samples.gt_classes < 3, samples.gt_classes, logits[:, :3].argmax(dim=1))
            boxes = clipped(boxes_by_hand(heads, deltas, samples.proposal_boxes.tensor, classes))
            result.append(boxes.tensor[boxes.nonempty() & ~samples.is_gt])
        return result


def recorded_step(heads, masks=False):
    """Losses and gradients of a training step, and its recorder."""
    (losses, gradients, *_), views = h.watched_step(heads, *batch(masks))
    return losses, gradients, Recorder(views)


@pytest.mark.parametrize("agnostic", [True, False])
@torch.no_grad()
def test_class_scores_are_by_default_the_softmax_of_the_loops_mean_logits(agnostic):
    heads = h.build(h.tiny_cfg(**{**loop(), "MODEL__ROI_BOX_HEAD__CLS_AGNOSTIC_BBOX_REG": agnostic})).eval()
    feats, props, _ = batch()
    found = heads.box_candidates(feats, props)
    for i, image in enumerate(props):
        maps, boxes, all_logits = [m[i : i + 1] for m in maps_of(heads, feats)], image.proposal_boxes, []
        for _ in IOUS:
            logits, deltas = heads.box_predictor(heads.box_head(heads.box_pooler(maps, [boxes])))
            unclipped = boxes_by_hand(heads, deltas, boxes.tensor, logits[:, :3].argmax(dim=1))
            boxes = clipped(unclipped)
            all_logits.append(logits)
        torch.testing.assert_close(found.scores[i], (sum(all_logits) / 3).softmax(dim=1))
        if agnostic:
            torch.testing.assert_close(found.boxes[i], unclipped)


@pytest.mark.parametrize("agnostic", [True, False])
def test_the_next_loop_gets_the_refined_boxes_without_appended_objects_which_are_appended_anew(agnostic):
    heads = h.build(h.tiny_cfg(**{**loop(), "MODEL__ROI_BOX_HEAD__CLS_AGNOSTIC_BBOX_REG": agnostic}))
    _, _, recorder = recorded_step(heads)
    assert all(any(image.is_gt.any() for image in samples) for samples in recorder.samples), "no object to be dropped"
    for k in (1, 2):
        for labeled, refined, target in zip(recorder.labeled[k], recorder.refined(heads, k - 1), batch()[2]):
            torch.testing.assert_close(labeled.proposal_boxes.tensor[~labeled.is_gt], refined)
            assert torch.equal(labeled.proposal_boxes.tensor[labeled.is_gt], target.gt_boxes.tensor)


def test_box_losses_and_their_gradients_are_the_plain_sum_over_loops_also_into_the_features():
    heads = h.build(h.tiny_cfg(**loop()))
    losses, gradients, recorder = recorded_step(heads)
    feats = {name: v.requires_grad_() for name, v in h.features(2).items()}
    expected = {}
    for k, samples in enumerate(recorder.samples):
        pooled = heads.box_pooler(maps_of(heads, feats), [s.proposal_boxes for s in samples])
        with EventStorage():
            each = heads.box_predictor.losses(heads.box_predictor(heads.box_head(pooled)), samples)
        expected.update({f"{name}_stage{k}": loss for name, loss in each.items()})
    torch.testing.assert_close(losses, expected)
    by_hand = torch.autograd.grad(sum(expected.values()), [*feats.values(), *heads.box_head.parameters()])
    of_parameters = [gradients[f"box_head.{name}"] for name, _ in heads.box_head.named_parameters()]
    torch.testing.assert_close([*(gradients[name] for name in feats), *of_parameters], list(by_hand))


@pytest.mark.parametrize("other", [FLOW, h.BRANCHES, h.IOU_BRANCH], ids=["masks", "branches", "iou branch"])
def test_losses_of_every_loop_are_the_unweighted_ones_times_its_weight(other):
    def losses(weights):
        heads = h.build(h.tiny_cfg(**loop(LOSS_WEIGHTS=list(weights)), **other))
        return h.train_step(heads, *batch(heads.mask_on))[0]

    weights = (1.0, 0.75, 0.5)
    weighted, unweighted = losses(weights), losses((1.0, 1.0, 1.0))
    assert len(weighted) >= 9 and sum(loss > 0 for loss in unweighted.values()) >= 9
    expected = {name: loss * weights[int(name.split("_stage")[1][0])] for name, loss in unweighted.items()}
    torch.testing.assert_close(weighted, expected)


def heads_with_masks(stages):
    """Heads with interleaved masks whose probabilities are far from 0.5, as they would not be when just initialised."""
    heads = h.build(h.tiny_cfg(**stages, **FLOW))
    with torch.no_grad():
        for mask_head in mask_heads(heads, 1):
            mask_head.predictor.weight.mul_(1000)
    return heads


def mask_heads(heads, num_stages):
    """The mask head of every stage: one each in a cascade, the same one over and over in a loop."""
    return list(heads.mask_head) if isinstance(heads.mask_head, torch.nn.ModuleList) else [heads.mask_head] * num_stages


def chain(heads, pooled, num_stages):
    """By hand: mask features of every stage on the same RoIs, each from those of the stage before."""
    all_features = []
    for k, mask_head in enumerate(mask_heads(heads, num_stages)):
        entry = pooled if k == 0 else pooled + mask_head.previous(all_features[-1]).relu()
        (conv,) = mask_head.conv_norm_relus
        all_features.append(conv(entry))
    return all_features


def inputs_of(module, position, seen):
    """From now on, append to ``seen`` what this module gets as its argument at a position."""
    module.register_forward_pre_hook(lambda _, args: seen.append(args[position]))
    return seen


def watch_masks(heads):
    """Two lists that fill up: the boxes that are pooled for masks, and the features that masks are predicted from."""
    boxes, mask_features = inputs_of(heads.mask_pooler, 1, []), []
    for mask_head in set(mask_heads(heads, 1)):
        inputs_of(mask_head.deconv, 0, mask_features)
    return boxes, mask_features


@pytest.mark.parametrize("stages", [loop(), CASCADE], ids=["loop", "cascade"])
def test_mask_features_in_training_are_those_of_inference_on_the_same_boxes(stages):
    heads = heads_with_masks(stages)
    boxes, mask_features = watch_masks(heads)
    feats, props, targets = batch(masks=True)
    h.train_step(heads, feats, props, targets)
    trained = [(b, f.detach()) for b, f in zip(boxes, mask_features)]
    assert len(boxes) == len(mask_features) == 3 and all(len(f) for f in mask_features)
    heads.eval()
    for k, (stage_boxes, in_training) in enumerate(trained):
        mask_features.clear()
        given = [
            Instances(h.IMAGE_SIZE, pred_boxes=b, pred_classes=torch.zeros(len(b), dtype=torch.long))
            for b in stage_boxes
        ]
        with torch.no_grad():
            heads.forward_with_given_boxes(feats, given)
            by_hand = chain(heads, heads.pool_masks(feats, stage_boxes), 3)
        torch.testing.assert_close(in_training, mask_features[k])
        torch.testing.assert_close(in_training, by_hand[k])


def test_a_loops_masks_train_on_the_boxes_that_it_refined_and_on_appended_objects_at_its_threshold():
    heads = heads_with_masks(loop())
    boxes, _ = watch_masks(heads)
    _, _, recorder = recorded_step(heads, masks=True)
    for k, threshold in enumerate(IOUS):
        for image_boxes, refined, target in zip(boxes[k], recorder.refined(heads, k), batch()[2]):
            assert len(image_boxes) > 0
            allowed = torch.cat([refined, target.gt_boxes.tensor])
            assert ((image_boxes.tensor[:, None] - allowed).abs().amax(dim=2).amin(dim=1) < 1e-3).all()
            assert (pairwise_iou(image_boxes, target.gt_boxes).amax(dim=1) >= threshold).all()


@pytest.mark.parametrize("stages", [loop(), loop(NUM_TEST=4), CASCADE], ids=["loop", "4 test loops", "cascade"])
@torch.no_grad()
def test_masks_at_inference_are_the_mean_of_all_stages_probabilities_on_the_final_boxes(stages):
    heads = heads_with_masks(stages)
    feats, props, _ = batch()
    found = h.detect(heads, feats, props)
    num_stages = heads.stages.num_test
    pooled = heads.pool_masks(feats, [image.pred_boxes for image in found])
    heads_and_features = zip(mask_heads(heads, num_stages), chain(heads, pooled, num_stages))
    all_masks = [head.predictor(head.deconv(x).relu()).sigmoid() for head, x in heads_and_features]
    mean = sum(all_masks) / num_stages
    assert all((masks - mean).abs().max() > 0.1 for masks in all_masks), "one stage's masks alone would do"
    classes = torch.cat([image.pred_classes for image in found])
    expected = mean[torch.arange(len(mean)), classes][:, None]
    torch.testing.assert_close(torch.cat([image.pred_masks for image in found]), expected, atol=1e-5, rtol=1e-5)
