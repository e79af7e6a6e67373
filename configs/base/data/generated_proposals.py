"""The generated data set with the proposals of quick/rpn_R_18_FPN (how to make them: generated_proposals.yaml)."""

from .generated import dataloader, eval_period, num_classes  # noqa: F401

_RUN = "output/rpn/inference/"

dataloader.train.dataset.proposal_files = [_RUN + "generated_train/box_proposals.pkl"]
dataloader.train.mapper.precomputed_proposal_topk = 2000
dataloader.test.dataset.proposal_files = [_RUN + "generated_val/box_proposals.pkl"]
dataloader.test.mapper.precomputed_proposal_topk = 1000
