"""The order of the training images against a slow reference, and its invariants."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.batches import batches as reference_batches

from d2_balanced.data.index_stream import GlobalBatches, IndexStream
from d2_balanced.data.seeding import derive_seed


def take(iterator, count):
    return [tuple(map(tuple, batch.tolist())) for batch in itertools.islice(iterator, count)]


@st.composite
def data_sets(draw):
    size = draw(st.integers(1, 12))
    groups = torch.tensor(draw(st.lists(st.integers(0, 2), min_size=size, max_size=size)))
    factors = draw(st.none() | st.lists(st.floats(1, 3.5), min_size=size, max_size=size))
    return groups, None if factors is None else torch.tensor(factors)


@settings(max_examples=60, deadline=None)
@given(data_sets(), st.integers(1, 5), st.integers(0, 2**40), st.integers(0, 25))
def test_any_start_gives_the_reference_order(data, batch_size, seed, start):
    groups, factors = data
    stream = IndexStream(len(groups), seed, factors)
    expected = itertools.islice(reference_batches(stream, batch_size, groups.tolist()), start, start + 5)
    found = take(GlobalBatches(stream, batch_size, groups).iter_from(start), 5)
    assert found == [tuple(batch) for batch in expected]


@settings(max_examples=30, deadline=None)
@given(data_sets(), st.integers(1, 5), st.integers(0, 1000))
def test_without_groups_the_stream_is_cut_in_order(data, batch_size, seed):
    stream = IndexStream(len(data[0]), seed, data[1])
    found = torch.cat(list(itertools.islice(GlobalBatches(stream, batch_size).iter_from(0), 10)))
    assert found[:, 1].tolist() == list(range(10 * batch_size))


@given(st.integers(1, 50), st.integers(0, 2**62), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_an_epoch_is_a_permutation_and_depends_on_seed_and_number_alone(size, seed, number):
    stream = IndexStream(size, seed)
    epoch = stream.epoch(number)
    assert sorted(epoch.tolist()) == list(range(size))
    torch.rand(3)
    assert torch.equal(epoch, IndexStream(size, seed, torch.ones(size)).epoch(number))


def test_epochs_and_seeds_differ():
    orders = {tuple(IndexStream(30, seed).epoch(number).tolist()) for seed in range(5) for number in range(5)}
    assert len(orders) == 25


def test_repeat_factors_are_met_on_average():
    factors = torch.tensor([1.0, 1.25, 2.5, 3.0])
    stream = IndexStream(4, 7, factors)
    epochs = 2000
    counts = torch.stack([stream.epoch(number).bincount(minlength=4) for number in range(epochs)]).double()
    whole = factors.floor()
    assert ((counts == whole) | (counts == whole + 1)).all()
    # A count is Bernoulli around the factor: 5 standard errors of its mean (seeded; a wrong rule is 100s away).
    fraction = (factors - whole).double()
    bound = 5 * (fraction * (1 - fraction) / epochs).sqrt()
    assert ((counts.mean(0) - factors).abs() <= bound).all()


def test_refused_settings():
    with pytest.raises(ValueError, match="training set is empty"):
        IndexStream(0, 1)
    with pytest.raises(ValueError, match="seed must be an integer of at least 0, got -1"):
        IndexStream(3, -1)
    with pytest.raises(ValueError, match="batch_index must be at least 0, got -1"):
        next(GlobalBatches(IndexStream(3, 0), 1).iter_from(-1))


def test_derived_seeds_are_the_same_everywhere():
    assert derive_seed("step", 1, 2) == 3900368444480723925
    assert derive_seed("augment", 0, 7, 0) == 93788188937011422
