"""The training loader: equal samples, augmentations included, for any workers, processes and start."""

import itertools
import random

import numpy as np
import pytest
import torch

from d2_balanced.data.index_stream import GlobalBatches, IndexStream
from d2_balanced.data.loader import ExactTrainLoader, build_train_loader
from d2_balanced.utils.errors import DataError

DICTS = [
    dict(image_id=i, file_name=f"{i}.png", width=20 + i % 3, height=21, annotations=[{"category_id": i % 4 // 3}])
    for i in range(11)
]


def augment(image):
    """Stands for a mapper: keeps the image's identity, and draws from the three generators that augmentations use."""
    draws = (random.random(), float(np.random.rand()), float(torch.rand(())))
    return {"image_id": image["image_id"], "width": image["width"], "draws": draws}


def make(**kwargs):
    settings = dict(dataset=DICTS, mapper=augment, total_batch_size=4, seed=3, repeat_threshold=0.9)
    return build_train_loader(**{**settings, **kwargs})


def share(rank, world_size, num_workers=0, total_batch_size=4):
    batches = GlobalBatches(IndexStream(len(DICTS), 3), total_batch_size)
    return ExactTrainLoader(
        batches, dataset=DICTS, mapper=augment, num_workers=num_workers, rank=rank, world_size=world_size
    )


def take(iterator, count):
    return list(itertools.islice(iterator, count))


@pytest.mark.parametrize("grouping", [False, True])
def test_neither_workers_nor_start_change_a_sample(grouping):
    whole = take(iter(make(aspect_ratio_grouping=grouping)), 24)
    for num_workers, start in [(0, 1), (0, 7), (0, 19), (1, 3), (2, 0), (2, 5)]:
        loader = make(aspect_ratio_grouping=grouping, num_workers=num_workers)
        assert take(loader.iter_from(start), 5) == whole[start : start + 5]


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_processes_share_the_same_global_batches(world_size):
    whole = take(share(0, 1).iter_from(2), 6)
    shares = [take(share(rank, world_size, num_workers=rank % 2).iter_from(2), 6) for rank in range(world_size)]
    for step, batch in enumerate(whole):
        assert [shares[i % world_size][step][i // world_size] for i in range(4)] == batch


def test_iterators_of_one_loader_are_independent():
    loader = make(num_workers=2)
    first, second = iter(loader), iter(loader)
    assert take(first, 3) + take(first, 2) == take(second, 5)


def test_the_callers_generators_stay_as_they_are():
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    expected = random.random(), np.random.rand(), torch.rand(2).tolist()
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    for num_workers in (0, 2):
        take(iter(make(num_workers=num_workers)), 3)
    assert (random.random(), np.random.rand(), torch.rand(2).tolist()) == expected


def test_augmentations_change_from_epoch_to_epoch_and_with_the_seed():
    samples = list(itertools.chain(*take(iter(make()), 30), *take(iter(make(seed=4)), 30)))
    assert len({sample["draws"] for sample in samples}) == len(samples)


def test_a_batch_is_all_wide_or_all_tall():
    for batch in take(iter(make()), 12):
        assert len({sample["width"] > 21 for sample in batch}) == 1


def test_a_repeat_threshold_below_every_frequency_changes_nothing():
    assert take(iter(make(repeat_threshold=0.1)), 8) == take(iter(make(repeat_threshold=0.0)), 8)


def test_rare_categories_come_more_often():
    loader = make(repeat_threshold=0.9)
    assert loader.batches_per_epoch * 4 > loader.dataset_size == 11
    counts = np.bincount([s["image_id"] for batch in take(iter(loader), 120) for s in batch], minlength=11)
    rare = counts[3::4]
    assert rare.min() > counts.sum() / len(counts) > np.delete(counts, [3, 7]).max()


def skips_odd_images(image):
    return None if image["image_id"] % 2 else augment(image)


def test_an_image_that_the_mapper_skips_is_replaced_by_the_same_one_every_time():
    whole = take(iter(make(mapper=skips_odd_images)), 10)
    assert all(sample["image_id"] % 2 == 0 for batch in whole for sample in batch)
    assert all(len({sample["width"] > 21 for sample in batch}) == 1 for batch in whole)
    assert take(make(mapper=skips_odd_images, num_workers=2).iter_from(4), 6) == whole[4:]
    assert [s for s in take(iter(make()), 1)[0] if s["image_id"] % 2 == 0] == [
        s for s, kept in zip(whole[0], take(iter(make()), 1)[0]) if kept["image_id"] % 2 == 0
    ]


def test_a_mapper_that_skips_everything_is_an_error():
    with pytest.raises(DataError, match=r"returned None for 100 images in a row, the first of them '\d+.png'"):
        next(iter(make(mapper=lambda image: None)))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_in_the_mapper_names_the_image(num_workers):
    def fails(image):
        raise OSError("truncated file")

    message = r"^preparing the training image '\d+.png' \(image_id \d+\) failed: OSError: truncated file$"
    with pytest.raises(DataError, match=message):
        next(iter(make(mapper=fails, num_workers=num_workers)))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_bug_in_the_mapper_is_no_error_of_the_data(num_workers):
    def has_a_bug(image):
        raise ValueError("not enough values to unpack")

    with pytest.raises(RuntimeError, match=r"training image '\d+.png' .* failed: ValueError: not enough"):
        next(iter(make(mapper=has_a_bug, num_workers=num_workers)))


def test_refused_settings():
    with pytest.raises(ValueError, match="training set is empty"):
        make(dataset=[])
    with pytest.raises(ValueError, match=r"multiple of the number of processes, 4; got 6"):
        share(0, 4, total_batch_size=6)
    with pytest.raises(ValueError, match=r"multiple of the number of processes, 1; got 0"):
        make(total_batch_size=0)
    with pytest.raises(ValueError, match=r"NUM_WORKERS must be at least 0, got -1"):
        make(num_workers=-1)
    with pytest.raises(ValueError, match=r"repeat_threshold must be in \[0, 1\], got 2"):
        make(repeat_threshold=2)
    with pytest.raises(ValueError, match=r"`width` and `height` of every image, but 'b.png' \(image_id 5\) lacks them"):
        make(dataset=DICTS + [{"file_name": "b.png", "image_id": 5, "annotations": []}])
    with pytest.raises(ValueError, match=r"`annotations` of every image, but 'b.png' \(image_id unknown\) has none"):
        make(dataset=DICTS + [{"file_name": "b.png", "width": 3, "height": 2}])


def test_without_grouping_sizes_are_not_needed():
    loader = make(dataset=[{"image_id": 0, "width": 1}], aspect_ratio_grouping=False, repeat_threshold=0.0, num_workers=0)
    assert [sample["image_id"] for sample in next(iter(loader))] == [0, 0, 0, 0]
