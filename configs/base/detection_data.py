"""The ``dataloader`` of a LazyConfig: training, test, evaluator."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.data import build_detection_test_loader, get_detection_dataset_dicts
from omegaconf import OmegaConf

from d2_balanced.data.loader import build_train_loader
from d2_balanced.data.mapper import BalancedMapper
from d2_balanced.evaluation import build_evaluator


def detection_data(train, test, *, min_size_train, max_size, min_size_test, num_workers=4):
    """Loaders of the registered data sets ``train`` (a name or several) and ``test`` (a name).

    Images are resized to a short side out of ``min_size_train`` (in the test ``min_size_test``) pixels, the long side
    to at most ``max_size``; half of the training images are flipped.
    """
    dataloader = OmegaConf.create(flags={"allow_objects": True})
    dataloader.train = L(build_train_loader)(
        dataset=L(get_detection_dataset_dicts)(names=train, filter_empty=True),
        mapper=L(BalancedMapper)(
            is_train=True,
            augmentations=[
                L(T.ResizeShortestEdge)(short_edge_length=min_size_train, max_size=max_size, sample_style="choice"),
                L(T.RandomFlip)(horizontal=True),
            ],
            image_format="BGR",
            use_instance_mask=False,
        ),
        total_batch_size=16,
        seed="${train.seed}",
        num_workers=num_workers,
        aspect_ratio_grouping=True,
        repeat_threshold=0.0,
    )
    dataloader.test = L(build_detection_test_loader)(
        dataset=L(get_detection_dataset_dicts)(names=test, filter_empty=False),
        mapper=L(BalancedMapper)(
            is_train=False,
            augmentations=[
                L(T.ResizeShortestEdge)(short_edge_length=min_size_test, max_size=max_size, sample_style="choice")
            ],
            image_format="BGR",
            use_instance_mask="${...train.mapper.use_instance_mask}",
        ),
        num_workers=num_workers,
    )
    dataloader.evaluator = L(build_evaluator)(
        dataset_name="${..test.dataset.names}", output_dir="${train.output_dir}", max_dets=100
    )
    return dataloader
