"""Small detectors for the CPU: R-18-FPN from scratch on small images, 240 iterations."""

from d2_balanced.engine.optimizer import clipped_sgd

from .compose import compose
from .models.small import shrink_one_stage, shrink_rcnn


def quick(model, dataset="generated", lr=0.03):
    """``model, data, dataloader, optimizer, lr_multiplier, train`` of the small version of ``models/<model>.py``."""
    model, data, dataloader, optimizer, lr_multiplier, train = compose(model, "R_18", "quick", dataset)
    if "proposal_generator" in model:
        shrink_rcnn(model)
    else:
        shrink_one_stage(model)
    optimizer.update(_target_=clipped_sgd, clip_type="norm", clip_value=1.0, lr=lr)
    train.update(seed=1, checkpointer={"period": 120, "max_to_keep": 100})
    train["test_aug"].update(min_sizes=[120, 160, 200, 240], max_size=480)
    return model, data, dataloader, optimizer, lr_multiplier, train
