"""How the outputs of parallel branches and of successive stages become the scores of the detections.

Shape shorthand: R, Ri: RoIs of the minibatch, of image i; K: foreground classes; S: stages; P: branches.
"""

import torch

from .predictions import with_logits

__all__ = ["merge_branches", "STAGE_MERGES"]


def merge_branches(predictions, box_branch):
    """One prediction from the parallel branches' (RGA + PRM, sec. 3.2).

    Args:
        predictions: P tuples (class logits (R, K+1), deltas (R, 4) or (R, 4K)), all for the same RoIs.
        box_branch: index of the branch whose deltas are kept.

    Returns the mean of the logits, taken before they become scores, and that branch's deltas. One branch passes unchanged.
    Raises ``ValueError`` without any.
    """
    if not predictions:
        raise ValueError("merge_branches: there must be at least one branch's prediction, got none")
    if len(predictions) == 1:
        return predictions[0]
    return with_logits(predictions[box_branch], torch.stack([logits for logits, _ in predictions]).mean(dim=0))


def _mean_probability(predictors, predictions, proposals):
    per_stage = [pr.predict_probs(out, boxes) for pr, out, boxes in zip(predictors, predictions, proposals)]
    # The order of the operations is detectron2's cascade's, so that the scores are equal to the last bit.
    return [sum(list(per_image)) * (1.0 / len(per_stage)) for per_image in zip(*per_stage)]


def _mean_logit(predictors, predictions, proposals):
    logits = torch.stack([logits for logits, _ in predictions]).mean(dim=0)
    return predictors[-1].predict_probs((logits, predictions[-1][1]), proposals[-1])


def _max_logit(predictors, predictions, proposals):
    logits = torch.stack([logits for logits, _ in predictions]).amax(dim=0)
    return predictors[-1].predict_probs((logits, predictions[-1][1]), proposals[-1])


def _last_alone(predictors, predictions, proposals):
    return predictors[-1].predict_probs(predictions[-1], proposals[-1])


STAGE_MERGES = {
    "probability": _mean_probability,
    "logit": _mean_logit,
    "max_logit": _max_logit,
    "last": _last_alone,
}
"""Merges of the stages' class scores: ``(predictors, predictions, proposals)``, lists of length S, to one tensor of
probabilities (Ri, K+1) an image. ``probability``: Cascade R-CNN; ``logit``: R3-CNN (sec. 3.1); ``max_logit``: its
variant with the maximum instead of the mean; ``last``: no merge, the last stage's own scores."""
