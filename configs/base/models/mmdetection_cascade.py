"""mmdetection's cascade, beside detectron2's, on a Cascade R-CNN (mmdetection_cascade.yaml says what differs)."""


def mmdetection_cascade(model):
    """Stage weights, minibatches in every stage, the whole gradient, and averaged logits."""
    model.roi_heads.stages.update(
        loss_weights=[1.0, 0.5, 0.25], resample=True, keep_appended_gt=False, feature_grad_scale=1.0, merge="logit"
    )
