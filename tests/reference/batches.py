"""Slow reference of the training order: one sample after another, one bucket per shape group."""

import itertools


def samples(stream):
    """Endless (data set index, position) of an ``IndexStream``, epoch after epoch."""
    positions = itertools.count()
    for epoch in itertools.count():
        for index in stream.epoch(epoch).tolist():
            yield index, next(positions)


def batches(stream, batch_size, groups):
    """Endless lists of ``batch_size`` samples of one group, each given out when it is full."""
    buckets = {group: [] for group in groups}
    for index, position in samples(stream):
        bucket = buckets[groups[index]]
        bucket.append((index, position))
        if len(bucket) == batch_size:
            yield bucket[:]
            bucket.clear()
