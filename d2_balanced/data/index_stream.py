"""Which images make up which training batch, as a pure function of (seed, batch index).

No image is read: a start position is reached by replaying metadata (index and shape group of every sample), which
takes a fraction of a second for a million samples.
"""

import torch

from .seeding import derive_seed

__all__ = ["IndexStream", "GlobalBatches"]


class IndexStream:
    """An infinite sequence of data set indices: one shuffled epoch after another, each a function of (seed, epoch).

    Args:
        size: number of images in the data set, at least 1.
        seed: integer, at least 0.
        repeat_factors: (size,) float tensor of expected appearances per epoch (LVIS paper, appendix B.2), each at least
            1, or None for one each. Fractions are rounded at random in every epoch, so epochs differ in size. All ones
            give the same sequence as None.
    """

    def __init__(self, size, seed, repeat_factors=None):
        if size < 1:
            raise ValueError("IndexStream: size must be at least 1; the training set is empty")
        if not isinstance(seed, int) or seed < 0:
            raise ValueError(f"IndexStream: seed must be an integer of at least 0, got {seed!r}")
        self.size = size
        self.seed = seed
        self.repeat_factors = repeat_factors

    @property
    def mean_epoch_size(self):
        """Expected number of samples in an epoch."""
        return float(self.size if self.repeat_factors is None else self.repeat_factors.sum())

    def epoch(self, number):
        """Data set indices of epoch ``number`` (from 0), (n,) int64, shuffled."""
        indices = self._indices_with_repeats(number)
        return indices[torch.randperm(len(indices), generator=self._generator("shuffle", number))]

    def _indices_with_repeats(self, number):
        indices = torch.arange(self.size)
        if self.repeat_factors is None:
            return indices
        whole = self.repeat_factors.floor()
        draws = torch.rand(self.size, generator=self._generator("repeat", number))
        return indices.repeat_interleave((whole + (draws < self.repeat_factors - whole)).long())

    def _generator(self, use, number):
        return torch.Generator().manual_seed(derive_seed(use, self.seed, number))


class GlobalBatches:
    """The batches that all processes together train on, in order.

    Args:
        stream: an :class:`IndexStream`.
        batch_size: images in a global batch.
        groups: (stream.size,) integer tensor with the shape group of each image, or None. Only images of one group
            share a batch; a batch takes its place in the order when its last image comes up in the stream. Images that
            wait for company are carried over into the next epoch, so none is lost.
    """

    def __init__(self, stream, batch_size, groups=None):
        self.stream = stream
        self.batch_size = batch_size
        self.groups = torch.zeros(stream.size, dtype=torch.int64) if groups is None else groups

    def iter_from(self, batch_index):
        """Infinite iterator of (batch_size, 2) int64 tensors, rows (data set index, position in the stream)."""
        if batch_index < 0:
            raise ValueError(f"GlobalBatches.iter_from: batch_index must be at least 0, got {batch_index}")
        to_skip = batch_index
        for batches in self._epochs():
            yield from batches[to_skip:]
            to_skip = max(to_skip - len(batches), 0)

    def _epochs(self):
        """The batches completed in each epoch, (number of batches, batch_size, 2)."""
        position, epoch = 0, 0
        waiting = [torch.zeros(0, 2, dtype=torch.int64) for _ in range(int(self.groups.max()) + 1)]
        while True:
            indices = self.stream.epoch(epoch)
            samples = torch.stack([indices, position + torch.arange(len(indices))], dim=1)
            yield self._complete_batches(samples, waiting)
            position, epoch = position + len(indices), epoch + 1

    def _complete_batches(self, samples, waiting):
        """Cut the samples of each group into batches; what is left over replaces the entries of ``waiting``."""
        group_of_sample = self.groups[samples[:, 0]]
        batches = []
        for group, earlier in enumerate(waiting):
            queue = torch.cat([earlier, samples[group_of_sample == group]])
            end = len(queue) - len(queue) % self.batch_size
            batches.append(queue[:end].reshape(-1, self.batch_size, 2))
            waiting[group] = queue[end:]
        batches = torch.cat(batches)
        return batches[batches[:, -1, 1].argsort()]
