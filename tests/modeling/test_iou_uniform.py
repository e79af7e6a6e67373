"""Boxes generated uniformly in IoU: golden file 6, exact counts, the spread inside an interval, crowds and corners."""

import math

import numpy as np
import pytest
import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes, pairwise_iou
from paths import shared_file

from d2_balanced.modeling.iou_pools import INTERVALS, jitter_iou, jitter_pool
from d2_balanced.modeling.iou_uniform import CASCADE_INTERVALS, RejectionIoUGenerator, UniformIoUGenerator

SIZE = (480, 640)
EDGES = torch.tensor([0.6, 0.7, 0.8])


def boxes(*rows):
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def counts(generated, num_objects):
    """Boxes an object and interval, (G, 4)."""
    table = torch.zeros(num_objects, 4)
    cell = (generated.matched_idxs, torch.bucketize(generated.ious, EDGES))
    return table.index_put_(cell, torch.ones(len(generated.ious)), accumulate=True)


@pytest.fixture(scope="module")
def golden():
    with np.load(shared_file("golden", "iou_uniform.npz"), allow_pickle=False) as data:
        return {key: data[key] for key in data.files}


def test_released_sampler_matches_golden_counts_and_deltas(golden):
    generator, draws = RejectionIoUGenerator(), 500
    transform = Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0))
    assert len(golden["sets"]) > 0
    for name in golden["sets"]:
        torch.manual_seed(0)
        gt, size = torch.from_numpy(golden[f"{name}_gt"]), tuple(golden[f"{name}_hw"].tolist())
        made = [m for _ in range(10) for m in generator([gt] * (draws // 10), [size] * (draws // 10))]
        table = torch.stack([counts(m, len(gt)) for m in made])
        mean, se = (torch.from_numpy(golden[f"{name}_cont_count_{x}"]) for x in ("mean", "se"))
        bound = 5 * (table.var(dim=0) / draws + se**2).sqrt() + 0.05
        assert ((table.mean(dim=0) - mean).abs() <= bound).all(), name
        ours = torch.cat([transform.get_deltas(m.boxes, gt[m.matched_idxs]) for m in made])
        interval = torch.bucketize(torch.cat([m.ious for m in made]), EDGES)
        for k in range(4):
            deltas, n = ours[interval == k], float(golden[f"{name}_cont_pooled_n"][k])
            want, std = (torch.from_numpy(golden[f"{name}_cont_pooled_delta_{x}"][k]) for x in ("mean", "std"))
            error = std * math.sqrt(1 / len(deltas) + 1 / n)
            assert ((deltas.mean(dim=0) - want).abs() <= 5 * error).all(), (name, k)
            assert ((deltas.std(dim=0) / std - 1).abs() <= 0.03).all(), (name, k)


def test_every_interval_of_every_object_is_filled_exactly(golden):
    generator = UniformIoUGenerator()
    assert len(golden["sets"]) > 0
    for name in golden["sets"]:
        gt, size = torch.from_numpy(golden[f"{name}_gt"]), tuple(golden[f"{name}_hw"].tolist())
        for seed in range(20):
            torch.manual_seed(seed)
            assert (counts(generator([gt], [size])[0], len(gt)) == 16).all(), name


@pytest.mark.parametrize("made_by", [UniformIoUGenerator(), RejectionIoUGenerator()])
def test_boxes_are_what_they_claim_to_be(made_by):
    """Inside the image, with the stated IoU, inside an interval, and no other object is a better match."""
    torch.manual_seed(0)
    corner = torch.rand(30, 2) * torch.tensor([500.0, 350.0])
    gt = torch.cat([corner, corner + 20 + 100 * torch.rand(30, 2)], dim=1)
    made = made_by([gt], [SIZE])[0]
    iou = pairwise_iou(Boxes(gt), Boxes(made.boxes))
    own = iou[made.matched_idxs, torch.arange(len(made.ious))]
    torch.testing.assert_close(own, made.ious, atol=1e-5, rtol=0)
    assert (own >= iou.max(dim=0).values - 1e-5).all()
    assert (own >= 0.5 - 1e-5).all()
    assert (made.boxes >= 0).all() and (made.boxes <= torch.tensor([640.0, 480.0, 640.0, 480.0])).all()


def test_ious_are_uniform_inside_every_interval():
    """Kolmogorov-Smirnov at a false-alarm rate of 1e-6 (Massart's bound), for objects away from the border."""
    torch.manual_seed(0)
    gt = boxes([200, 150, 280, 270], [400, 100, 430, 120])
    ious = torch.cat([m.ious for m in UniformIoUGenerator()([gt] * 250, [SIZE] * 250)])
    interval = torch.bucketize(ious, EDGES)
    for k, (low, high) in enumerate(INTERVALS):
        x = ((ious[interval == k] - low) / (high - low)).sort().values
        n = len(x)
        grid = torch.arange(n) / n
        distance = torch.maximum((x - grid).abs(), (x - grid - 1 / n).abs()).max()
        assert distance <= math.sqrt(math.log(2 / 1e-6) / (2 * n)), (k, n)


def test_directions_and_scales_are_even():
    torch.manual_seed(0)
    gt = boxes([200, 150, 280, 270])
    made = UniformIoUGenerator()([gt] * 300, [SIZE] * 300)
    made = torch.cat([m.boxes for m in made])
    shift = (made[:, :2] + made[:, 2:]) / 2 - (gt[0, :2] + gt[0, 2:]) / 2
    scale = (made[:, 2:] - made[:, :2]) / (gt[0, 2:] - gt[0, :2])
    error = 0.5 / math.sqrt(len(made))
    for share in [*(shift > 0).float().mean(dim=0), *(scale > 1).float().mean(dim=0)]:
        assert abs(share - 0.5) <= 5 * error
    # Not degenerate: boxes differ from the object in every way, not along one line only.
    assert (torch.corrcoef(torch.cat([shift, scale.log()], dim=1).T).fill_diagonal_(0).abs() < 0.2).all()


def test_no_objects_some_objects_and_the_order_of_images():
    gt = [boxes(), boxes([10, 10, 60, 90]), boxes()]
    for generator in (UniformIoUGenerator(), RejectionIoUGenerator()):
        made = generator(gt, [SIZE] * 3)
        assert [len(m.boxes) for m in made][::2] == [0, 0] and len(made[1].boxes) > 40
        assert all(len(m.boxes) == 0 for m in generator(gt[:1] * 2, [SIZE] * 2))


def test_objects_of_other_images_do_not_matter():
    near = boxes([100, 100, 180, 220]), boxes([102, 100, 182, 220])
    made = UniformIoUGenerator()(near, [SIZE] * 2)
    iou = pairwise_iou(Boxes(near[1]), Boxes(made[0].boxes))[0]
    assert (iou > made[0].ious).any(), "boxes closer to the other image's object were wrongly dropped"


def test_identical_objects_share_fairly():
    gt = boxes([100, 100, 180, 220], [100, 100, 180, 220])
    assert (counts(UniformIoUGenerator()([gt], [SIZE])[0], 2) == 16).all()
    assert counts(RejectionIoUGenerator()([gt], [SIZE])[0], 2)[1].sum() == 0  # as released: the first takes all


def test_an_object_among_near_twins_gets_only_boxes_that_fit_it_best():
    gt = boxes([100, 100, 200, 200], *[[100 + a, 100 + b, 200 + a, 200 + b] for a in (-1, 1) for b in (-1, 1)])
    for seed in range(5):
        torch.manual_seed(seed)
        made = UniformIoUGenerator()([gt], [SIZE])[0]
        iou = pairwise_iou(Boxes(gt), Boxes(made.boxes))
        assert (iou[made.matched_idxs, torch.arange(len(made.ious))] >= iou.max(dim=0).values - 1e-6).all()
        assert (counts(made, 5)[0] <= 16).all()


def test_crowds_are_capped_evenly():
    corner = torch.cartesian_prod(torch.arange(10) * 60.0, torch.arange(8) * 55.0)
    gt = torch.cat([corner, corner + 40], dim=1)
    made = UniformIoUGenerator(max_per_image=1000)([gt], [SIZE])[0]
    assert len(made.boxes) <= 1000
    assert (counts(made, 80) == 1000 // (80 * 4)).all()


def test_seeds():
    gt, generator = boxes([10, 10, 60, 90], [30, 20, 90, 80]), UniformIoUGenerator()
    draw = lambda seed: (torch.manual_seed(seed), generator([gt], [SIZE])[0].boxes)[1]  # noqa: E731
    assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))


def test_cascade_intervals_are_filled_too():
    gt = boxes([200, 150, 280, 270])
    for intervals in CASCADE_INTERVALS:
        made = UniformIoUGenerator(intervals, num_per_interval=8)([gt], [SIZE])[0]
        assert len(made.boxes) == 8 * len(intervals)
        assert intervals[0][0] <= made.ious.min() and made.ious.max() <= 1


def test_pool_is_what_it_says():
    for interval in INTERVALS:
        iou = jitter_iou(jitter_pool(interval).double())
        low, high = interval
        assert low < iou.min() and iou.max() < high
        assert abs(iou.mean() - (low + high) / 2) < 1e-4


@pytest.mark.parametrize("interval", [(0.98, 1.0), (0.9999, 1.0), (0.99999, 1.0), (0.7, 0.7001), (1e-6, 1e-3)])
def test_pool_of_an_interval_that_draws_rarely_hit(interval, monkeypatch):
    """Bounded work, and as even in IoU, direction and scale as that of a common interval."""
    drawn, draw = [0], torch.rand
    monkeypatch.setattr(torch, "rand", lambda n, *args, **kw: (drawn.append(n), draw(n, *args, **kw))[1])
    pool = jitter_pool.__wrapped__(interval).double()
    assert sum(drawn) <= 2**21
    iou = (jitter_iou(pool).sort().values[::8] - interval[0]) / (interval[1] - interval[0])
    assert (iou - (torch.arange(512) + 0.5) / 512).abs().max() < 0.02
    assert len(pool.unique(dim=0)) > 4000 and (pool.std(dim=0) > 0).all()
    if interval[0] > 0.9:  # near IoU 1 a jitter is a direction: 1 - IoU grows in proportion along the ray
        shape = pool.std(dim=0) / pool.std(dim=0).sum()
        common = jitter_pool((0.9, 1.0)).double().std(dim=0)
        assert (shape / (common / common.sum()) - 1).abs().max() < 0.1


def test_narrow_intervals_are_filled():
    gt = boxes([200, 150, 280, 270], [400, 300, 500, 420])
    for interval in ((0.98, 1.0), (0.9999, 1.0), (0.7, 0.7001)):
        made = UniformIoUGenerator([interval])([gt], [SIZE])[0]
        assert len(made.ious) == 32 and interval[0] <= made.ious.min() and made.ious.max() <= interval[1]


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"intervals": [(0.6, 0.5)]}, "intervals"),
        ({"intervals": []}, "intervals"),
        ({"intervals": [(0.5, 0.6), (0.7, 0.700001)]}, "intervals must be at least 1e-05 wide"),
        ({"num_per_interval": 0}, "num_per_interval"),
        ({"max_per_image": 3}, "max_per_image"),
    ],
)
def test_bad_settings(arguments, words):
    with pytest.raises(ValueError, match=words):
        UniformIoUGenerator(**arguments)
    with pytest.raises(ValueError, match="tries"):
        RejectionIoUGenerator(tries=0)


def test_more_objects_than_the_cap_allows_still_get_a_box_an_interval():
    """150 objects at 2048 boxes: 3 an interval; at 100 boxes: one, as an object without boxes would not be learned."""
    corner = torch.cartesian_prod(torch.arange(15) * 42.0, torch.arange(10) * 47.0)
    gt = torch.cat([corner, corner + 36], dim=1)
    for limit, expected in ((2048, 3), (100, 1)):
        made = UniformIoUGenerator(max_per_image=limit)([gt], [SIZE])[0]
        assert (counts(made, 150) == expected).all()


def test_images_of_different_crowding_have_quotas_of_their_own():
    corner = torch.cartesian_prod(torch.arange(10) * 60.0, torch.arange(8) * 55.0)
    crowd = torch.cat([corner, corner + 40], dim=1)
    made = UniformIoUGenerator(max_per_image=1000)([crowd, boxes(), crowd[:2]], [SIZE] * 3)
    assert [len(m.boxes) for m in made] == [960, 0, 128]
    assert (counts(made[0], 80) == 3).all() and (counts(made[2], 2) == 16).all()


@pytest.mark.parametrize("generator", [UniformIoUGenerator(), RejectionIoUGenerator()])
def test_objects_without_area_in_the_image_get_no_boxes(generator):
    """Without width, without height, beyond the border; an ordinary object beside them is not disturbed."""
    empty = [[50, 60, 50, 90], [50, 60, 90, 60], [5, 5, 5, 5], [640, 100, 700, 200], [-80, 10, 0, 60]]
    made = generator([boxes(*empty, [100, 100, 180, 220])], [SIZE])[0]
    assert (made.matched_idxs == 5).all() and len(made.boxes) > 40
    assert torch.isfinite(made.boxes).all() and torch.isfinite(made.ious).all()
    assert all(len(m.boxes) == 0 for m in generator([boxes(*empty)], [SIZE]))


def test_boxes_need_no_gradient_and_stay_float32_under_autocast():
    gt = boxes([10, 10, 60, 90], [300, 200, 400, 260]).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = UniformIoUGenerator()([gt], [SIZE])[0]
    assert not made.boxes.requires_grad and not made.ious.requires_grad
    assert made.boxes.dtype == made.ious.dtype == torch.float32
    iou = pairwise_iou(Boxes(gt.detach()), Boxes(made.boxes))[made.matched_idxs, torch.arange(len(made.ious))]
    torch.testing.assert_close(iou, made.ious, atol=1e-5, rtol=0)
    assert (counts(made, 2) == 16).all()
