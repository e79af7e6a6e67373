"""One training step for all two-stage detectors here, along three independent axes.

- stages: one, a cascade with a head each, or a loop over one shared head (``stages.py``);
- branches: box heads side by side, each on its own minibatch (``branches.py``);
- IoU branch: none, or a regressor and IoU predictor of their own (``iou_branch.py``).

Shape shorthand: N: images; R, Ri: RoIs of the minibatch, of image i; K: foreground classes; P: branches; S: stages.
"""

import functools
import itertools
from contextlib import nullcontext

import torch
from detectron2.config import configurable
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, StandardROIHeads
from detectron2.modeling.roi_heads.cascade_rcnn import _ScaleGradient
from detectron2.structures import Boxes
from detectron2.utils.events import get_event_storage
from torch import nn

from ..awaited_hook import AwaitedHook
from ..log_counts import counts_in_one_transfer
from ..sample_weights.seat import SampleWeights
from ..scoring import STAGE_MERGES, merge_branches
from ..stage_view import StageView
from ..suppression import NMS
from . import build, check_axes, labeling
from .branches import BoxBranch, as_module
from .candidates import BoxCandidates, without_duplicates
from .checkpoint_keys import fill_missing_branches, spread_mask_head
from .iou_branch import PredictorBoxes
from .mask_branch import FirstStageMasks
from .mask_parts import MaskParts
from .refine import one_box_per_proposal, refined_proposals
from .stages import SingleStage

__all__ = ["BalancedROIHeads"]


@ROI_HEADS_REGISTRY.register()
class BalancedROIHeads(StandardROIHeads):
    """ROI heads with stages, parallel branches and an IoU branch; the method to read first is :meth:`_train_boxes`.

    With the default axes it is detectron2's ``StandardROIHeads``, with ``CascadeStages`` its ``CascadeROIHeads``:
    equal losses, gradients, detections and checkpoint keys.
    """

    reads = ("MODEL.BALANCED", "INPUT.IGNORE_REGIONS")  # settings that nobody else reads: config/refusals.py

    @configurable
    def __init__(
        self,
        *,
        proposal_sampler,
        stages=None,
        branches=(),
        test_branches=None,
        iou_branch=None,
        mask_branch=None,
        mask_iou_head=None,
        extra_proposals=None,
        sample_weights=None,
        nms=None,
        gradients_annealed=False,
        **kwargs,
    ):
        """
        Args:
            proposal_sampler: sampler of branch 0's minibatch, see ``PROPOSAL_SAMPLER_REGISTRY``.
            stages: a :class:`~.stages.Stages`; ``None``: :class:`~.stages.SingleStage`.
            branches: list of :class:`~.branches.BoxBranch` beside branch 0, which is made of the arguments
                ``box_head``, ``box_predictor``, ``positive_fraction``, ``batch_size_per_image``, ``proposal_sampler``.
            test_branches: indices of the branches used at inference; ``None`` or empty: all.
            iou_branch: an object with the methods of :class:`~.iou_branch.PredictorBoxes`, which ``None`` stands for.
            mask_branch: an object with the methods of :class:`~.mask_branch.FirstStageMasks`, which ``None`` stands for.
            mask_iou_head: a head of ``MASK_IOU_HEAD_REGISTRY`` that scores the masks, or ``None``.
            extra_proposals: a component of ``EXTRA_PROPOSALS_REGISTRY`` for the first stage's training, or ``None``.
            sample_weights: a component of ``SAMPLE_WEIGHTS_REGISTRY``, which weighs the samples or chooses them by what
                is predicted for them; ``None``: all weigh the same.
            nms: a component of ``NMS_REGISTRY``, which removes duplicates at inference; ``None``: detectron2's NMS.
            gradients_annealed: the config asks for gradient annealing, which is a hook of the trainer: the first
                training pass without it warns.
            kwargs: arguments of ``StandardROIHeads``; ``box_head`` and ``box_predictor`` are lists for a cascade.

        Raises ``ValueError`` for axes that do not fit together, naming both sides.
        """
        first = BoxBranch(
            box_head=kwargs.pop("box_head"),
            box_predictor=kwargs.pop("box_predictor"),
            positive_fraction=kwargs["positive_fraction"],
            batch_size_per_image=kwargs["batch_size_per_image"],
            sampler=proposal_sampler,
        )
        kwargs["mask_head"] = as_module(kwargs.get("mask_head"))
        super().__init__(box_head=first.box_head, box_predictor=first.box_predictor, **kwargs)
        self.stages = stages or SingleStage()
        self.branches = [first, *branches]
        self.iou_branch = iou_branch or PredictorBoxes()
        self.mask_branch = mask_branch or FirstStageMasks()
        self.mask_iou_head = mask_iou_head
        self.extra_proposals = extra_proposals
        self.sample_weights = sample_weights or SampleWeights()
        self.nms = nms or NMS()
        self.test_branches = sorted(set(test_branches or range(len(self.branches))))
        self.matchers = self.stages.matchers(self.proposal_matcher)
        self.num_refinements = self.stages.num_train - 1 + self.mask_branch.refines_last_stage
        check_axes.check_axes(self)
        if getattr(self.nms, "joint", False) and hasattr(self.nms, "expect_sources"):
            self.nms.expect_sources(len(self.test_branches))
        # The main branch has the most positives. It feeds the mask head and gives the boxes at inference.
        self.main_branch = self._most_positive(range(len(self.branches)))
        # Whoever wants to see the training step (recording/recorder.py): `observe(view)` is called once a stage.
        self.observers = []
        if gradients_annealed:
            self._awaited_hook = AwaitedHook(
                "GradientAnnealing", "SOLVER.GRADIENT_ANNEALING is set, but the gradients are not annealed"
            )
        self._register_modules()

    @classmethod
    def from_config(cls, cfg, input_shape):
        return {**super().from_config(cfg, input_shape), **build.arguments_from_config(cfg, input_shape)}

    # StandardROIHeads.from_config calls these where they are class methods; here build.py makes all modules.
    _init_box_head = _init_mask_head = _init_keypoint_head = None

    def _register_modules(self):
        for p, branch in enumerate(self.branches[1:], start=1):
            self.add_module(f"box_head_branch{p}", branch.box_head)
            self.add_module(f"box_predictor_branch{p}", branch.box_predictor)
        for branch in self.branches:
            branch.for_each_predictor(self.iou_branch.take_over)
            branch.for_each_predictor(self.sample_weights.prepare)
        # The first matcher is a submodule already (`proposal_matcher`), if it is a module at all.
        self.later_matchers = nn.ModuleList([m for m in self.matchers[1:] if isinstance(m, nn.Module)])

    def forward(self, images, features, proposals, targets=None):
        """See ``ROIHeads.forward``: training returns (samples of the first stage, losses), inference (detections, {})."""
        if self.training:
            with counts_in_one_transfer():
                samples, losses = self._train_boxes(features, proposals, targets)
            losses.update(self._forward_mask(features, samples))
            losses.update(self._forward_keypoint(features, samples))
            return samples, losses
        detections = self._detect_boxes(features, proposals)
        return self.forward_with_given_boxes(features, detections), {}

    def label_and_sample_proposals(self, proposals, targets):
        """The first stage's labels and branch 0's minibatch; see ``ROIHeads.label_and_sample_proposals``."""
        return self._sample(0, self._label(proposals, targets, 0), targets, 0)

    def _train_boxes(self, features, proposals, targets):
        """The training step, from proposals to losses; only masks that train on the first samples come after it.

        Args:
            features: dict of feature maps (N, C, H, W).
            proposals: list of ``Instances`` with ``proposal_boxes``.
            targets: list of ``Instances`` with ``gt_boxes``, ``gt_classes`` and what other heads need.

        Returns the main branch's samples of the first stage, and a dict of scalar losses.
        """
        self._check_awaited_hook()
        losses = {}
        maps = [features[f] for f in self.box_in_features]
        candidates = [proposals]  # one list for all branches in the first stage, one a branch in the later ones
        for k in range(self.stages.num_train):
            labeled = [self._label(c, targets, k) for c in candidates]
            labeled = labeled * (len(self.branches) // len(labeled))
            samples = [self._sample(p, labeled[p], targets, k) for p in range(len(self.branches))]
            samples = self._choose(maps, k, targets, labeled, samples)
            view = self._view(maps, k, targets, labeled, samples)
            self._show(view)
            for p in range(len(self.branches)):
                losses.update(self._box_losses(view, p))
            losses.update(self._iou_branch_losses(maps, view))
            if k == 0:
                first_samples = samples[self.main_branch]
            if k < self.num_refinements:
                candidates = self._refine(view)
                losses.update(self._mask_losses(features, candidates[self.main_branch], view))
        if self.train_on_pred_boxes:
            self._replace_by_predicted_boxes(view)
        return first_samples, losses

    def _detect_boxes(self, features, proposals):
        """Inference of the box heads; a list of ``Instances`` with ``pred_boxes``, ``scores`` and ``pred_classes``."""
        joint = getattr(self.nms, "joint", False)
        parts = [[p] for p in self.test_branches] if joint else [self.test_branches]
        found = [self.box_candidates(features, proposals, part) for part in parts]
        return without_duplicates(self.nms, self.iou_branch, found)

    @property
    def test_predictor(self):
        """The predictor that gives the boxes at inference; its thresholds and number of detections hold."""
        return self.branches[self._most_positive(self.test_branches)].predictor(self.stages.num_test - 1)

    def box_candidates(self, features, proposals, test_branches=()):
        """Every proposal refined stage by stage, with merged scores, before NMS: :class:`~.candidates.BoxCandidates`.

        Args:
            test_branches: indices of the branches to merge; none: ``self.test_branches``.
        """
        features = [features[f] for f in self.box_in_features]
        test_branches = test_branches or self.test_branches
        branches = [self.branches[p] for p in test_branches]
        box_branch = test_branches.index(self._most_positive(test_branches))
        stage_inputs, stage_outputs, predictors = [], [], []
        for k in range(self.stages.num_test):
            pooled = self.box_pooler(features, [p.proposal_boxes for p in proposals])  # once for all branches
            merged = merge_branches([branch.predict(pooled, k) for branch in branches], box_branch)
            predictor = branches[box_branch].predictor(k)
            boxes = self.iou_branch.boxes(predictor, merged, pooled, proposals, k)
            stage_inputs.append(proposals)
            stage_outputs.append(merged)
            predictors.append(predictor)
            if k + 1 < self.stages.num_test:
                one_box = one_box_per_proposal(boxes, merged[0], proposals)
                proposals = refined_proposals(one_box, proposals, training=False, keep_appended_gt=True)
        return BoxCandidates(
            boxes=boxes,
            scores=STAGE_MERGES[self.stages.merge](predictors, stage_outputs, stage_inputs),
            image_sizes=[p.image_size for p in proposals],
            predictor=predictor,
            stage=self.stages.num_test - 1,
            pooled=pooled,
            pool=lambda each: self.box_pooler(features, each),
            variances=self.iou_branch.variances(predictor, merged, proposals),
            confidences=self.iou_branch.confidences(predictor, merged, proposals),
        )

    def _forward_mask(self, features, instances):
        if not self.mask_on:
            return {} if self.training else instances
        act = self.mask_branch.losses if self.training else self.mask_branch.predict
        return act(self._mask_parts(features), instances)

    def _mask_parts(self, features, targets=None):
        """``targets``: of a training stage whose masks train with its boxes, and so with its gradient scale."""
        pool = self.pool_masks if targets is None else lambda *args: self._scale_gradient(self.pool_masks(*args))
        return MaskParts(
            mask_head=self.mask_head,
            mask_iou_head=self.mask_iou_head,
            stages=self.stages,
            num_classes=self.num_classes,
            pool=lambda boxes: pool(features, boxes),
            label_and_sample=lambda proposals, stage: self._sample_for_masks(proposals, targets, stage),
        )

    def pool_masks(self, features, boxes):
        """Mask features (R, C, h, w) of a list of ``Boxes``, one an image, from the dict of feature maps.

        A mask head without a pooler gets the feature maps themselves, as in ``StandardROIHeads``.
        """
        if self.mask_pooler is None:
            return {f: features[f] for f in self.mask_in_features}
        return self.mask_pooler([features[f] for f in self.mask_in_features], boxes)

    def _label(self, proposals, targets, stage):
        labeled = self._label_boxes(proposals, targets, stage)
        if self.extra_proposals is None or stage > 0:
            return labeled
        generated = self.extra_proposals(labeled, targets, self.num_classes)
        return labeling.join_generated(labeled, generated, targets, self.matchers[stage], self.num_classes)

    def _label_boxes(self, boxes, targets, stage):
        """A stage's boxes, labeled (``labeling.label_proposals``), with ground truth where that stage appends it."""
        appends = self.proposal_append_gt and (stage == 0 or self.stages.resample)
        boxes = labeling.append_gt(boxes, targets) if appends else labeling.mark_no_gt(boxes)
        return labeling.label_proposals(boxes, targets, self.matchers[stage], self.num_classes)

    def _sample(self, p, labeled, targets, stage):
        """Branch ``p``'s samples at a stage, or, where the sample weights choose, what they choose from."""
        with self._log_scope(stage if stage > 0 else None, p, "candidates" if self._chooses(stage) else ""):
            if self.sample_weights.takes_all_proposals:
                return self._keep_all(labeled, targets, stage)
            return self._draw_samples(p, labeled, targets, stage)

    def _sample_for_masks(self, proposals, targets, stage):
        labeled = self._label_boxes(proposals, targets, stage)
        with get_event_storage().name_scope(f"stage{stage}/mask"):
            return self._draw_samples(self.main_branch, labeled, targets, stage)

    def _draw_samples(self, p, labeled, targets, stage):
        """A minibatch of branch ``p``, or all labeled proposals where the stage does not sample."""
        if self.stages.draws(stage):
            return labeling.sample_proposals(labeled, targets, self.branches[p], self.num_classes)
        return self._keep_all(labeled, targets, stage)

    def _keep_all(self, labeled, targets, stage):
        may_ignore = -1 in getattr(self.matchers[stage], "labels", (-1,))
        return labeling.keep_all_labeled(labeled, targets, may_ignore, self.num_classes)

    def _chooses(self, stage):
        return self.sample_weights.chooses and self.stages.draws(stage)

    @torch.no_grad()
    def _choose(self, maps, stage, targets, labeled, candidates):
        """Every branch's samples: of its candidates what the sample weights choose by a prediction of their own; all of
        them where they do not choose."""
        if not self._chooses(stage):
            return candidates
        view = self._view(maps, stage, targets, labeled, candidates)
        return [self._choose_of_branch(view, p) for p in range(len(self.branches))]

    def _choose_of_branch(self, view, p):
        branch = self.branches[p]
        losses = branch.predictor(view.stage).roi_losses(view.predictions[p], view.samples[p])
        settings = branch.batch_size_per_image, branch.positive_fraction
        drawn = self.sample_weights.choose(view.of_branch(p), losses, *settings)
        with self._log_scope(view.stage if view.stage > 0 else None, p):
            return labeling.take_drawn(view.samples[p], view.targets, drawn)

    def _view(self, maps, stage, targets, labeled, samples):
        """The stage with what is predicted for the samples."""
        pooled = self._pool_branches(maps, samples)
        predictions = [branch.predict(x, stage) for branch, x in zip(self.branches, pooled)]
        return StageView(stage, targets, labeled, samples, pooled, predictions)

    def _check_awaited_hook(self):
        if hasattr(self, "_awaited_hook"):
            self._awaited_hook.check()

    def _show(self, view):
        """Show a stage to whoever watches: losses see their branch, sample weights one branch after another, the
        matcher the main branch, observers all."""
        predictors = [branch.predictor(view.stage) for branch in self.branches]
        losses = [(p, getattr(pr, name, None)) for name in ("cls_loss", "box_loss") for p, pr in enumerate(predictors)]
        weights = [(p, self.sample_weights) for p in range(len(self.branches))]
        for p, component in [*losses, *weights, (self.main_branch, self.matchers[view.stage])]:
            if hasattr(component, "observe"):
                component.observe(view.of_branch(p).without_generated())
        for observer in self.observers:
            observer.observe(view)

    def _pool_branches(self, features, samples):
        """Pool all branches' samples in one call; returns one tensor (R, C, h, w) a branch."""
        boxes = [[s.proposal_boxes for s in image] for image in zip(*samples)]
        boxes = [Boxes.cat(image) if len(image) > 1 else image[0] for image in boxes]
        pooled = self._scale_gradient(self.box_pooler(features, boxes))  # rows ordered by image, then by branch
        if len(samples) == 1:
            return [pooled]
        parts = pooled.split([len(s) for image in zip(*samples) for s in image])
        return [torch.cat(parts[p :: len(samples)]) for p in range(len(samples))]

    def _scale_gradient(self, pooled):
        """The features of a training stage's heads, whichever they are: ``feature_grad_scale`` of their gradient flows on."""
        scale = self.stages.feature_grad_scale
        return pooled if scale == 1.0 else _ScaleGradient.apply(pooled, scale)

    def _box_losses(self, view, p):
        step = self.branches[p].predictor(view.stage), view.predictions[p], view.samples[p]
        weigh = functools.partial(self.sample_weights.weights, view.of_branch(p)) if self.sample_weights.weighs else None
        with self._log_scope(view.stage, p):
            losses = self.iou_branch.classifier_losses(*step, weigh)
        return self._weigh(losses, view.stage, "_branch%d" % p if len(self.branches) > 1 else "")

    def _iou_branch_losses(self, maps, view):
        samples = view.samples[self.main_branch]
        pool = lambda boxes: self._scale_gradient(self.box_pooler(maps, boxes))  # noqa: E731
        losses = self.iou_branch.losses(pool, view.targets, samples, view.stage)
        return self._weigh(losses, view.stage, "")

    def _mask_losses(self, features, refined, view):
        if not self.mask_on:
            return {}
        with self._log_scope(view.stage):
            losses = self.mask_branch.stage_losses(self._mask_parts(features, view.targets), refined, view.stage)
        return self._weigh(losses, view.stage, "")

    def _weigh(self, losses, stage, suffix):
        """The stage's losses with its weight and number; a mask IoU head, which trains in one stage only, has its own."""
        suffix = ("_stage%d" % stage if len(self.matchers) > 1 else "") + suffix
        weights = {"loss_mask_iou": 1.0}
        return {k + suffix: v * weights.get(k, self.stages.loss_weights[stage]) for k, v in losses.items()}

    @torch.no_grad()
    def _refine(self, view):
        """Every branch's samples, refined by its predictions: its candidates in the next stage."""
        boxes = [image for p in range(len(self.branches)) for image in self._refined_boxes(view, p)]
        samples = list(itertools.chain(*view.samples))
        keep_appended_gt = self.stages.keep_appended_gt
        refined = refined_proposals(boxes, samples, training=True, keep_appended_gt=keep_appended_gt)
        return [refined[start : start + len(view.targets)] for start in range(0, len(refined), len(view.targets))]

    def _refined_boxes(self, view, p):
        return one_box_per_proposal(self._predicted_boxes(view, p), view.predictions[p][0], view.samples[p])

    @torch.no_grad()
    def _replace_by_predicted_boxes(self, view):
        """Let the samples of the main branch have the boxes that it predicts for them; there is one stage only."""
        p = self.main_branch
        if self.iou_branch.replaces_regressor:
            boxes = self._predicted_boxes(view, p)
        else:
            boxes = self.branches[p].predictor(0).predict_boxes_for_gt_classes(view.predictions[p], view.samples[p])
        for image, image_boxes in zip(view.samples[p], boxes):
            image.proposal_boxes = Boxes(image_boxes)

    def _predicted_boxes(self, view, p):
        predictor = self.branches[p].predictor(view.stage)
        return self.iou_branch.boxes(predictor, view.predictions[p], view.pooled[p], view.samples[p], view.stage)

    def _most_positive(self, indices):
        return max(indices, key=lambda p: self.branches[p].positive_fraction)  # the first of equals

    def _log_scope(self, stage, p=None, inner=""):
        parts = [f"stage{stage}"] if len(self.matchers) > 1 and stage is not None else []
        parts += [f"branch{p}"] if len(self.branches) > 1 and p is not None else []
        parts += [inner] if inner else []
        return get_event_storage().name_scope("/".join(parts)) if parts else nullcontext()

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        fill_missing_branches(self, state_dict, prefix)
        spread_mask_head(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
