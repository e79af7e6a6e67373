"""The parts that treat all images of a batch at once: the same as for every image alone, or as detectron2's."""

import pytest
import roi_heads_tools as h
import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes, Instances
from roi_heads_tools import IMAGE_SIZE

from d2_balanced.modeling.roi_heads.joined import join_images, split_images, take_rows
from d2_balanced.modeling.roi_heads.refine import refined_proposals
from d2_balanced.modeling.roi_heads.sorted_pooler import SortedROIPooler


def images(sizes, seed=0):
    """Images with boxes, numbers and masks; the last one has no numbers."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for n, size in enumerate(sizes):
        image = Instances((50 + n, 60), boxes=Boxes(torch.rand(size, 4, generator=generator)))
        image.masks = h.targets((size,), masks=True)[0].gt_masks
        if n + 1 < len(sizes):
            image.numbers = torch.arange(size) + 10 * n
        made.append(image)
    return made


def assert_equal(first, second):
    assert first.image_size == second.image_size and first.get_fields().keys() == second.get_fields().keys()
    for name, value in first.get_fields().items():
        other = second.get(name)
        assert torch.equal(getattr(value, "tensor", value), getattr(other, "tensor", other))


@pytest.mark.parametrize("sizes", [(3,), (2, 0, 5), (0, 0)], ids=str)
def test_rows_are_taken_as_from_every_image_alone(sizes):
    made = images(sizes)
    rows = [torch.arange(size + 2) % size if size else torch.arange(0) for size in sizes]
    for image, taken, chosen in zip(made, take_rows(made, rows), rows):
        assert_equal(taken, image[chosen])


def test_joined_and_split_again():
    made = images((2, 0, 3))
    for image, again in zip(made, split_images(join_images(made), [2, 0, 3], [image.image_size for image in made])):
        assert again.image_size == image.image_size and list(again.get_fields()) == ["boxes"]
        assert torch.equal(again.boxes.tensor, image.boxes.tensor)


@pytest.mark.parametrize("num_boxes", [(40, 30), (0, 25), (0, 0), (1, 0)], ids=str)
def test_pooler_is_detectron2s_to_the_bit(num_boxes):
    generator = torch.Generator().manual_seed(0)
    boxes = [Boxes(h.random_boxes(num, generator, low=4.0, high=90.0)) for num in num_boxes]
    settings = dict(output_size=3, scales=(1 / 4, 1 / 8), sampling_ratio=0, pooler_type="ROIAlignV2")
    settings["canonical_box_size"] = 40
    results = []
    for pooler in (ROIPooler(**settings), SortedROIPooler(**settings)):
        maps = [each.requires_grad_() for each in h.features(2).values()]
        pooled = pooler(maps, boxes)
        (pooled * torch.arange(pooled.numel()).view_as(pooled)).sum().backward()
        results.append([pooled.detach(), *(each.grad for each in maps)])
    assert results[0][0].shape == (sum(num_boxes), 8, 3, 3)
    assert all(map(torch.equal, *results))


def refined(boxes, training, keep=True):
    flags = [torch.arange(len(image)) == 0 for image in boxes]
    samples = [Instances(IMAGE_SIZE, proposal_boxes=Boxes(b), is_gt=is_gt) for b, is_gt in zip(boxes, flags)]
    return refined_proposals(boxes, samples, training=training, keep_appended_gt=keep)


@pytest.mark.parametrize("keep", [True, False])
def test_refined_boxes_are_clipped_and_empty_ones_dropped_as_by_detectron2(keep):
    generator = torch.Generator().manual_seed(0)
    boxes = [100 * torch.randn(num, 4, generator=generator) for num in (30, 0, 20)]
    for image, ours in zip(boxes, refined(boxes, True, keep)):
        expected = Boxes(image)
        expected.clip(IMAGE_SIZE)
        rows = expected.nonempty() & (keep | (torch.arange(len(image)) > 0))
        assert torch.equal(ours.proposal_boxes.tensor, expected.tensor[rows])
    assert [len(image) for image in refined(boxes, False)] == [30, 0, 20]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_refined_boxes_that_are_not_finite(value):
    boxes = [torch.tensor([[1.0, 2, 30, 40], [1, 2, value, 40]])]
    with pytest.raises(FloatingPointError, match="Inf/NaN. Training has diverged"):
        refined(boxes, training=True)
    assert refined(boxes, training=False)[0].proposal_boxes.tensor.isfinite().all()
