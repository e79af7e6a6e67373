"""Counts for the log: the same entries as without waiting, and one transfer for all of them."""

import os

import pytest
import torch
from detectron2.utils.events import EventStorage
from paths import ROOT

from d2_balanced.modeling.log_counts import counts_in_one_transfer, log_counts


@pytest.fixture
def count(monkeypatch):
    monkeypatch.syspath_prepend(os.path.join(ROOT, "benchmarks"))
    from host_work import count

    return count


def write(storage, first, second):
    storage.put_scalar("first", first)
    storage.put_scalar("share", first / second)


def a_pass(storage):
    log_counts(torch.tensor([3, 4]), write)
    with storage.name_scope("stage1/branch0"):
        log_counts(torch.tensor([5, 8]), write)
        with storage.name_scope("other"):
            log_counts(torch.tensor([6]), lambda storage, number: storage.put_scalar("number", number))
        storage.put_scalar("known", 7)


def test_entries_and_scopes_are_those_of_writing_at_once(count):
    with EventStorage(3) as at_once:
        work = count(lambda: a_pass(at_once))
    assert work.syncs == 3

    def together():
        with counts_in_one_transfer():
            a_pass(later)
            assert set(later.latest()) == {"stage1/branch0/known"}

    with EventStorage(3) as later:
        work = count(together)
        later.put_scalar("after", 0)  # the scope of now is as it was
    assert work.syncs == 1
    assert later.latest() == {**at_once.latest(), "after": (0.0, 3)}
    assert at_once.latest()["stage1/branch0/share"] == (0.625, 3)


def test_inside_of_a_scope():
    with EventStorage() as storage, storage.name_scope("outer"):
        with counts_in_one_transfer():
            log_counts(torch.tensor([3, 4]), write)
        log_counts(torch.tensor([1, 2]), write)
    assert storage.history("outer/first").values() == [(3.0, 0), (1.0, 0)]


def test_a_pass_that_fails_logs_nothing_and_leaves_nothing_behind():
    with EventStorage() as storage:
        with pytest.raises(FloatingPointError):
            with counts_in_one_transfer():
                log_counts(torch.tensor([3, 4]), write)
                raise FloatingPointError
        assert storage.latest() == {}
        with counts_in_one_transfer():
            pass
        log_counts(torch.tensor([1, 2]), write)
    assert storage.latest()["first"] == (1.0, 0)
