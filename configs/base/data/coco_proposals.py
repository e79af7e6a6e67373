"""COCO with the proposals of detectron2's RPN baseline."""

from .coco import dataloader, eval_period, num_classes  # noqa: F401

_RUN = "detectron2://COCO-Detection/rpn_R_50_FPN_1x/137258492/"

dataloader.train.dataset.proposal_files = [_RUN + "coco_2017_train_box_proposals_21bc3a.pkl"]
dataloader.train.mapper.precomputed_proposal_topk = 2000
dataloader.train.num_workers = 2  # the proposals are held in memory by every worker
dataloader.test.dataset.proposal_files = [_RUN + "coco_2017_val_box_proposals_ee0dad.pkl"]
dataloader.test.mapper.precomputed_proposal_topk = 1000
dataloader.test.num_workers = 2
