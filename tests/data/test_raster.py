"""Polygons to masks and back: against slow references, and against pycocotools, which training and evaluation use."""

import numpy as np
import pycocotools.mask as coco_mask
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import raster as reference

from d2_balanced.data.outlines import CLASS_NAMES, LOOK_ALIKES, SUBPIXELS, place_outline
from d2_balanced.data.raster import box_of, fill, trace

sides, seeds, shares = st.integers(1, 9), st.integers(0, 2 ** 32 - 1), st.sampled_from([0.3, 0.5, 0.8])
masks = st.tuples(sides, sides, seeds, shares).map(
    lambda t: np.random.RandomState(t[2]).random_sample((t[0], t[1])) < t[3])


def decoded(polygons, height, width):
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))).astype(bool)


@pytest.mark.parametrize("name", CLASS_NAMES + LOOK_ALIKES)
def test_fill_equals_point_in_polygon(name):
    vertices = place_outline(name, 11.0, 1.3, 0.7, (3.3, -4.8))  # also left of and above the origin
    (x, y), mask = fill(vertices)
    moved = [(a - x * SUBPIXELS, b - y * SUBPIXELS) for a, b in vertices.tolist()]
    np.testing.assert_array_equal(mask, reference.polygon_mask(moved, *mask.shape, SUBPIXELS))
    assert mask.any()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-40, 120), st.integers(-40, 120)), min_size=3, max_size=7))
def test_fill_equals_point_in_polygon_for_any_polygon(points):
    """Also self-crossing ones and those with an edge through a pixel's centre."""
    (x, y), mask = fill(np.array(points))
    moved = [(a - x * SUBPIXELS, b - y * SUBPIXELS) for a, b in points]
    np.testing.assert_array_equal(mask, reference.polygon_mask(moved, *mask.shape, SUBPIXELS))


def test_an_outline_has_the_size_it_was_asked_for():
    for name in CLASS_NAMES + LOOK_ALIKES:
        vertices = place_outline(name, 50.0, 1.5, 0.4, (60.0, 40.0)) / SUBPIXELS
        width, height = vertices.max(0) - vertices.min(0)
        assert abs(np.sqrt(width * height) - 50) < 0.2
        np.testing.assert_allclose((vertices.max(0) + vertices.min(0)) / 2, (60, 40), atol=1 / SUBPIXELS)


@settings(max_examples=200, deadline=None)
@given(masks)
def test_traced_polygons_decode_to_the_mask(mask):
    """Any mask: holes, islands in holes, pixels that touch by a corner."""
    polygons = trace(mask)
    if not mask.any():
        assert polygons == []
        return
    assert all(len(p) >= 8 and len(p) % 2 == 0 for p in polygons)
    np.testing.assert_array_equal(decoded(polygons, *mask.shape), mask)
    assert box_of(mask) == reference.box(mask)


def test_a_ring_becomes_polygons_without_holes():
    mask = np.ones((5, 6), dtype=bool)
    mask[2, 2:4] = False
    polygons = trace(mask)
    np.testing.assert_array_equal(decoded(polygons, 5, 6), mask)
    areas = [abs(sum(p[k] * p[(k + 3) % len(p)] - p[(k + 2) % len(p)] * p[k + 1] for k in range(0, len(p), 2))) / 2
             for p in polygons]
    assert sum(areas) == mask.sum()
