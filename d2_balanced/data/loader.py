"""The training data loader: every batch is a pure function of (seed, batch index).

What a process sees depends neither on the number of workers, nor on the number of processes (each takes its share of
the same global batches), nor on where the run was stopped and resumed. ``index_stream.py`` has the order of images.
"""

import itertools

import torch
from detectron2.data.common import DatasetFromList
from detectron2.data.detection_utils import SizeMismatchError
from detectron2.utils import comm
from detectron2.utils.serialize import PicklableWrapper
from torch.utils.data import DataLoader, Dataset

from ..utils.errors import ConfigError, DataError
from ..utils.worker_signals import outlive_sigterm
from .index_stream import GlobalBatches, IndexStream
from .repeat_factors import RepeatFactors
from .seeding import derive_seed, seeded

__all__ = ["build_train_loader", "ExactTrainLoader"]

MAX_REPLACEMENTS = 100


def build_train_loader(
    *, dataset, mapper, total_batch_size, seed, num_workers=0, aspect_ratio_grouping=True, repeat_threshold=0.0
):
    """The exact training loader, for both config systems (LazyConfig's ``dataloader.train`` is this callable).

    Args:
        dataset: list of detectron2 data set dicts, already filtered (images without objects, crowd-only images...).
        mapper: callable, data set dict -> what the model takes. It may draw from Python's, NumPy's and torch's
            generators, which are seeded for each sample, and should have no random state of its own. If it returns
            None, another image takes the place of this one.
        total_batch_size: images in a batch of all processes together; a multiple of the number of processes.
        seed: integer of at least 0 (resolve detectron2's -1 with ``engine.rng.resolve_seed``).
        num_workers: processes that prepare data; changes nothing but speed.
        aspect_ratio_grouping: put only wide, or only tall, images into a batch; needs ``width`` and ``height``.
        repeat_threshold: repeat images that have a category found in less than this fraction of the images
            (detectron2's repeat factors), in [0, 1]; 0 repeats none.

    Returns:
        :class:`ExactTrainLoader`.

    Raises:
        DataError: an empty data set, or missing ``width``, ``height`` or ``annotations``.
        ConfigError: a batch size that the processes cannot share, a number out of range.
    """
    if not dataset:
        raise DataError("build_train_loader: the training set is empty (after filtering); check DATASETS.TRAIN")
    if not 0.0 <= repeat_threshold <= 1.0:
        raise ConfigError(f"build_train_loader: repeat_threshold must be in [0, 1], got {repeat_threshold}")
    repeats = _repeat_factors(dataset, repeat_threshold) if repeat_threshold > 0 else None
    groups = _aspect_ratio_groups(dataset) if aspect_ratio_grouping else None
    stream = IndexStream(len(dataset), seed, repeats and repeats.of_images)
    batches = GlobalBatches(stream, total_batch_size, groups)
    return ExactTrainLoader(batches, dataset=dataset, mapper=mapper, num_workers=num_workers, repeats=repeats)


class ExactTrainLoader:
    """This process's share of the global batches, prepared by ``mapper``.

    Args:
        batches: :class:`GlobalBatches`.
        dataset, mapper, num_workers: see :func:`build_train_loader`.
        rank, world_size: of this process; None takes them from the process group.
        repeats: the ``RepeatFactors`` that the batches follow, or None; they are an attribute, too.

    Attributes:
        dataset_size: number of images.
        total_batch_size: images in a global batch.
        batches_per_epoch: expected number of global batches in an epoch (a float; repeat factors make epochs longer).
    """

    def __init__(self, batches, *, dataset, mapper, num_workers=0, rank=None, world_size=None, repeats=None):
        self.rank = comm.get_rank() if rank is None else rank
        self.world_size = comm.get_world_size() if world_size is None else world_size
        self.total_batch_size = batches.batch_size
        if self.total_batch_size < 1 or self.total_batch_size % self.world_size:
            raise ConfigError(
                f"the training batch (SOLVER.IMS_PER_BATCH; LazyConfig: dataloader.train.total_batch_size) must be a "
                f"multiple of the number of processes, {self.world_size}; got {self.total_batch_size}"
            )
        if num_workers < 0:
            raise ConfigError(f"DATALOADER.NUM_WORKERS must be at least 0, got {num_workers}")
        self.batches, self.repeats = batches, repeats
        self.num_workers = num_workers
        self.dataset_size = len(dataset)
        self.batches_per_epoch = batches.stream.mean_epoch_size / self.total_batch_size
        self._samples = _SampleDataset(dataset, mapper, batches)

    def __iter__(self):
        return self.iter_from(0)

    def first_sample(self):
        """The first mapped sample, so that a mapper that fails does so before training. Draws from no generator."""
        return self._samples[tuple(next(self.batches.iter_from(0))[0].tolist())]

    def iter_from(self, batch_index):
        """Infinite iterator of lists of ``total_batch_size / world_size`` mapped samples.

        Args:
            batch_index: the global batch to start with, from 0. A training that takes a batch per step resumes at its
                number of finished steps.

        Several iterators are independent of each other.
        """
        loader = DataLoader(
            self._samples,
            batch_sampler=_ShareOfBatches(self.batches, batch_index, self.rank, self.world_size),
            num_workers=self.num_workers,
            collate_fn=_as_list,
            worker_init_fn=outlive_sigterm,
            # Without a generator of its own, creating the iterator would draw from the model's.
            generator=torch.Generator().manual_seed(0),
        )
        return _with_short_errors(iter(loader))


class _ShareOfBatches:
    """Batch sampler: from one global batch on, every ``world_size``-th sample of each batch."""

    def __init__(self, batches, batch_index, rank, world_size):
        self.batches, self.batch_index = batches, batch_index
        self.rank, self.world_size = rank, world_size

    def __iter__(self):
        for batch in self.batches.iter_from(self.batch_index):
            yield batch[self.rank :: self.world_size].tolist()


class _SampleDataset(Dataset):
    """(data set index, position in the stream) -> mapped sample; augmentations are seeded from (seed, position)."""

    def __init__(self, dataset, mapper, batches):
        # Serialised, the list is shared with the workers; a lambda as a mapper survives any start method of theirs.
        self.dicts = DatasetFromList(dataset)
        self.mapper = PicklableWrapper(mapper)
        self.seed = batches.stream.seed
        self.groups = batches.groups

    def __len__(self):
        return len(self.dicts)

    def __getitem__(self, sample):
        index, position = sample
        for attempt in range(MAX_REPLACEMENTS):
            chosen = self._replacement(index, position, attempt) if attempt else index
            mapped = self._map(chosen, position, attempt)
            if mapped is not None:
                return mapped
        raise DataError(
            f"the data mapper returned None for {MAX_REPLACEMENTS} images in a row, the first of them "
            f"{_describe(self.dicts[index])}; filter such images out of the data set instead"
        )

    def _map(self, index, position, attempt):
        try:
            with seeded(derive_seed("augment", self.seed, position, attempt)):
                return self.mapper(self.dicts[index])
        except Exception as error:
            # A file that cannot be read, or has another size than its annotations say; else it is a fault of the mapper.
            kind = DataError if isinstance(error, (OSError, SizeMismatchError, DataError)) else RuntimeError
            raise kind(
                f"preparing the training image {_describe(self.dicts[index])} failed: {type(error).__name__}: {error}"
            ) from error

    def _replacement(self, index, position, attempt):
        """Another image of the same shape group, drawn from (seed, position, attempt)."""
        candidates = (self.groups == self.groups[index]).nonzero().flatten()
        return int(candidates[derive_seed("replace", self.seed, position, attempt) % len(candidates)])


def _with_short_errors(batches):
    """The same; torch puts a worker's traceback into the message of what it raised, and of a ``DataError`` it is cut."""
    try:
        yield from batches
    except DataError as error:
        raise DataError(str(error).rsplit(f"{DataError.__module__}.DataError: ", 1)[-1].strip()) from error


def _as_list(samples):
    return samples


def _aspect_ratio_groups(dataset):
    """(len(dataset),) int64: 0 for images that are wider than tall, 1 for the others."""
    for image in itertools.filterfalse(lambda d: "width" in d and "height" in d, dataset):
        raise DataError(
            f"aspect-ratio grouping needs `width` and `height` of every image, but {_describe(image)} lacks them; add "
            "them to the data set dicts, or set DATALOADER.ASPECT_RATIO_GROUPING to False"
        )
    return torch.tensor([int(image["width"] <= image["height"]) for image in dataset])


def _repeat_factors(dataset, threshold):
    for image in itertools.filterfalse(lambda d: "annotations" in d, dataset):
        raise DataError(
            f"repeat factors need the `annotations` of every image, but {_describe(image)} has none; "
            "set repeat_threshold (DATALOADER.REPEAT_THRESHOLD) to 0"
        )
    return RepeatFactors(dataset, threshold)


def _describe(image):
    return f"{image.get('file_name', '(no file name)')!r} (image_id {image.get('image_id', 'unknown')})"
