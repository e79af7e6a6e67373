"""Rows of several images at once: what ``nonzero`` gives for every image alone."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from d2_balanced.modeling.image_rows import count_selected, first_rows, selected_by_image, selected_rows

images_of_rows = st.lists(st.lists(st.booleans(), max_size=9), max_size=6)


@settings(max_examples=200, deadline=None)
@given(images_of_rows)
def test_selected_rows_are_those_of_nonzero(images):
    images = [torch.tensor(image, dtype=torch.bool) for image in images]
    selected, sizes = torch.cat([torch.zeros(0, dtype=torch.bool), *images]), [len(image) for image in images]
    rows, counts = selected_rows(selected, sizes)
    assert torch.equal(rows, selected.nonzero()[:, 0]) and counts == [int(image.sum()) for image in images]
    by_image = selected_by_image(selected, sizes)
    assert len(by_image) == len(images)
    assert all(torch.equal(rows, image.nonzero()[:, 0]) for rows, image in zip(by_image, images))


def test_rows_that_are_selected_more_than_once():
    before, counts = count_selected(torch.tensor([2, 0, 3, 1]), [1, 0, 3])
    assert before.tolist() == [0, 2, 2, 5, 6] and counts == [2, 0, 4]


def test_first_rows():
    assert first_rows([]) == [] and first_rows([3]) == [0] and first_rows([3, 0, 2]) == [0, 3, 3]
