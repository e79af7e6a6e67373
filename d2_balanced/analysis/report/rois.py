"""Pictures of training images with the proposals that match an object, and the RoIs that are sampled."""

from __future__ import annotations

import os
from typing import Iterable, List

import torch
from PIL import Image, ImageDraw

from ...recording.hook import find_recorded_heads
from ...utils.drawing import class_color, side_by_side
from ..training_samples import run_in_training_mode

__all__ = ["save_roi_pictures"]

_PANEL = 480  # pixels that the longer side of a panel is enlarged to
_EASY_IOU = 0.05
_POSITIVE, _HARD, _EASY, _TRUTH = (60, 220, 60), (255, 140, 0), (70, 110, 255), (255, 255, 255)


class _FirstStage:
    """An observer of the ROI heads that keeps the latest view of their first stage."""

    def observe(self, view):
        if view.stage == 0:
            self.view = view


@torch.no_grad()
def save_roi_pictures(model, batches: Iterable[List[dict]], folder: str, number: int = 4, seed: int = 0) -> List[str]:
    """Draw the first ``number`` training images; returns the paths of the PNGs ``rois_0.png``, ...

    Left: objects, and the positive proposals in the colour of the object that they match. Right: the minibatch.

    Args:
        model: a detector with ``BalancedROIHeads``, which is left in training mode.
        batches: training inputs, as of the training loader.
        folder: for the pictures; it exists.
    """
    heads = find_recorded_heads(model)
    observer, main = _FirstStage(), heads.main_branch
    paths: List[str] = []
    for batch in batches:
        batch = batch[: number - len(paths)]
        run_in_training_mode(model, [batch], observer, seed)
        view = observer.view
        for image, targets, labeled, samples in zip(batch, view.targets, view.labeled[main], view.samples[main]):
            picture = _picture(_pixels(image["image"], model), targets, labeled, samples, heads.num_classes)
            paths.append(os.path.join(folder, f"rois_{len(paths)}.png"))
            picture.save(paths[-1])
        if len(paths) >= number:
            break
    return paths


def _pixels(image, model):
    """A Pillow image of a training input (3, H, W)."""
    if getattr(model, "input_format", "BGR") == "BGR":
        image = image.flip(0)
    return Image.fromarray(image.permute(1, 2, 0).clamp(0, 255).to(torch.uint8).cpu().numpy())


def _picture(image, targets, labeled, samples, num_classes):
    scale = max(_PANEL / max(image.size), 1.0)
    enlarged = image.resize([round(scale * side) for side in image.size], Image.BILINEAR)
    matched, num_matched = _matched(enlarged.copy(), scale, targets, labeled, num_classes)
    sampled, counts = _sampled(enlarged.copy(), scale, targets, samples, num_classes)
    titles = [f"{len(targets)} objects, {num_matched} positive proposals"]
    titles.append("sampled: {} positive, {} negative, {} of IoU < {:g}".format(*counts, _EASY_IOU))
    return side_by_side([matched, sampled], titles)


def _matched(canvas, scale, targets, labeled, num_classes):
    draw = ImageDraw.Draw(canvas)
    positive = (labeled.gt_classes >= 0) & (labeled.gt_classes < num_classes) & ~labeled.is_gt
    boxes = labeled.proposal_boxes.tensor[positive].tolist()
    for box, index in zip(boxes, labeled.matched_idxs[positive].tolist()):
        _rectangle(draw, box, scale, class_color(index), 1)
    for index, box in enumerate(targets.gt_boxes.tensor.tolist()):
        _rectangle(draw, box, scale, class_color(index), 3)
    return canvas, len(boxes)


def _sampled(canvas, scale, targets, samples, num_classes):
    draw = ImageDraw.Draw(canvas)
    positive = samples.gt_classes < num_classes
    easy = ~positive & (samples.matched_ious < _EASY_IOU)
    for rows, color in ((easy, _EASY), (~positive & ~easy, _HARD), (positive & ~samples.is_gt, _POSITIVE)):
        for box in samples.proposal_boxes.tensor[rows].tolist():
            _rectangle(draw, box, scale, color, 1)
    for box in targets.gt_boxes.tensor.tolist():
        _rectangle(draw, box, scale, _TRUTH, 2)
    return canvas, [int(rows.sum()) for rows in (positive, ~positive, easy)]


def _rectangle(draw, box, scale, color, width):
    x1, y1, x2, y2 = (scale * value for value in box)
    draw.rectangle([x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)], outline=color, width=width)
