"""ROIAlign by bags of pixels: torchvision's values and gradients, on maps with their channels last."""

import pytest
import torch
from detectron2.layers import ROIAlign
from detectron2.structures import Boxes
from torchvision.ops import roi_align

from d2_balanced.modeling.roi_heads import sorted_pooler
from d2_balanced.modeling.roi_heads.bag_roi_align import bag_roi_align
from d2_balanced.modeling.roi_heads.sorted_pooler import SortedROIPooler

NASTY = [
    [0, 3.2, 4.1, 20.9, 17.5],
    [1, -30.0, -12.0, 14.0, 9.0],  # partly outside
    [0, 55.0, 40.0, 90.0, 70.0],  # across the far corner
    [1, 200.0, 300.0, 260.0, 350.0],  # wholly outside
    [0, 10.0, 10.0, 10.0, 30.0],  # without width
    [0, 10.0, 10.0, 10.0, 10.0],  # a point
    [0, 0.0, 0.0, 64.0, 1.5],  # long and thin
    [1, -4.0, -4.0, -4.0, -4.0],  # on the border of what is read at all
    [1, 0.0, 0.0, 64.0, 48.0],
]


def feature_map(channels=5, height=12, width=16):
    x = torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(0))
    return x.to(memory_format=torch.channels_last).requires_grad_()


@pytest.mark.parametrize("size", [(7, 7), (3, 2), (1, 1)])
@pytest.mark.parametrize("sampling_ratio", [0, 1, 2, 3])
@pytest.mark.parametrize("rois", [NASTY, NASTY[:1], []], ids=["nasty", "one", "none"])
def test_values_and_gradient_are_torchvision_s(size, sampling_ratio, rois):
    rois = torch.tensor(rois).reshape(-1, 5)
    results = []
    for function in (bag_roi_align, lambda *args: roi_align(*args, True)):
        x = feature_map()
        pooled = function(x, rois, size, 0.25, sampling_ratio)
        (pooled * torch.arange(pooled.numel()).view(pooled.shape).sin()).sum().backward()
        results.append((pooled, x.grad))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


def test_the_pooler_takes_bags_where_channels_are_last(monkeypatch):
    settings = {"output_size": 3, "scales": (0.25, 0.125), "sampling_ratio": 0, "pooler_type": "ROIAlignV2"}
    maps = [feature_map(), feature_map(height=6, width=8)]
    boxes = [Boxes(torch.tensor([[2.0, 3.0, 40.0, 30.0], [0.0, 0.0, 300.0, 280.0]])), Boxes(torch.zeros(0, 4))]
    pooler, called = SortedROIPooler(**settings), []
    monkeypatch.setattr(sorted_pooler, "bag_roi_align", lambda *args: called.append(1) or bag_roi_align(*args))
    expected = pooler([x.contiguous() for x in maps], boxes)
    assert not called and type(pooler.level_poolers[0]) is ROIAlign
    torch.testing.assert_close(pooler(maps, boxes), expected, rtol=1e-5, atol=1e-5)
    assert len(called) == 2
    called.clear()
    SortedROIPooler(**{**settings, "pooler_type": "ROIAlign"})(maps, boxes)  # not aligned
    assert not called
