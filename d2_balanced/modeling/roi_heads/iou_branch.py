"""The IoU-branch axis: who regresses the boxes, and whether predicted IoUs change the scores.

Every IoU branch has the three methods of :class:`PredictorBoxes`, which is what a detector without one uses.
"""

__all__ = ["PredictorBoxes"]


class PredictorBoxes:
    """No IoU branch: boxes come from the predictor's own deltas, and scores are the class probabilities.

    Shape shorthand: R, Ri: RoIs of the minibatch, of image i; K: foreground classes.
    """

    def classifier_losses(self, predictor, predictions, samples):
        """Losses of a branch's predictor on its minibatch: those of the predictor itself. A dict of scalar tensors."""
        return predictor.losses(predictions, samples)

    def losses(self, pool, targets, samples, stage):
        """Losses of the IoU branch's own modules at a training stage: none. A dict of scalar tensors.

        Args:
            pool: function from a list of ``Boxes`` (one an image) to pooled features (R, C, h, w).
            targets: list of ``Instances`` with ``gt_boxes``.
            samples: the main branch's minibatch of this stage.
            stage: index of the stage.
        """
        return {}

    def boxes(self, predictor, predictions, pooled, proposals, stage):
        """The boxes that a stage predicts: one tensor (Ri, 4) or (Ri, 4K) an image, in pixels."""
        return predictor.predict_boxes(predictions, proposals)

    def rescore(self, pool, pooled, boxes, scores, score_thresh):
        """Final scores of the last stage's boxes, and the threshold that detections must exceed.

        Args:
            pool: as for :meth:`losses`.
            pooled: features (R, C, h, w) that the last stage's boxes were predicted from.
            boxes: list of tensors (Ri, 4) or (Ri, 4K).
            scores: list of tensors (Ri, K+1), class probabilities with the background last.
            score_thresh: threshold on the class probabilities.

        Returns scores of the same shape and the threshold that goes with them.
        """
        return scores, score_thresh
