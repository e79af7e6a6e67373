"""Components from spec nodes."""

import pytest
from detectron2.config import CfgNode
from detectron2.modeling.meta_arch.fcos import FCOSHead
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from detectron2.utils.registry import Registry

from d2_balanced.config import ConfigError
from d2_balanced.modeling.spec import build_component, missing_arguments, signature_parameters

REGISTRY = Registry("TOY")


@REGISTRY.register()
class Toy:
    def __init__(self, thresholds, *, size=3, ratio=0.5, mode="a", limit=None):
        if size < 1:
            raise ValueError(f"Toy: size must be 1 or more, got {size}")
        self.arguments = (thresholds, size, ratio, mode, limit)


@REGISTRY.register()
class ToyWithMore(Toy):
    def __init__(self, *, extra=1, **kwargs):
        super().__init__(**kwargs)
        self.extra = extra


@REGISTRY.register()
def toy_function(size=2):
    return size * 10


def build(node, **context):
    return build_component(REGISTRY, CfgNode(node, new_allowed=True), "MODEL.TOY", **context)


def test_arguments_context_and_defaults():
    assert build({"NAME": "Toy", "SIZE": 5}, thresholds=[0.5]).arguments == ([0.5], 5, 0.5, "a", None)


def test_context_that_the_constructor_does_not_take_is_left_out():
    assert build({"NAME": "toy_function"}, thresholds=[0.5]) == 20


def test_arguments_that_a_class_forwards_to_its_base():
    toy = build({"NAME": "ToyWithMore", "SIZE": 5, "EXTRA": 2}, thresholds=[0.5])
    assert (toy.arguments[1], toy.extra) == (5, 2)


def test_int_where_the_default_is_a_float_and_anything_where_it_is_none():
    assert build({"NAME": "Toy", "RATIO": 1, "LIMIT": "x"}, thresholds=1).arguments == (1, 3, 1.0, "a", "x")


def test_empty_name_is_no_component():
    assert build({"NAME": ""}) is None


@pytest.mark.parametrize(
    "node, context, parts",
    [
        ({"NAME": "Toi"}, {}, ["MODEL.TOY.NAME", "'Toi'", "Did you mean Toy"]),
        ({"NAME": "Toy", "SIZ": 3}, {"thresholds": 1}, ["MODEL.TOY.SIZ", "THRESHOLDS, SIZE, RATIO", "mean SIZE"]),
        ({"NAME": "ToyWithMore", "XTRA": 3}, {"thresholds": 1}, ["MODEL.TOY.XTRA", "Did you mean EXTRA"]),
        ({"NAME": "Toy", "SIZE": "x"}, {"thresholds": 1}, ["MODEL.TOY.SIZE", "expected int", "got str 'x'"]),
        ({"NAME": "Toy", "SIZE": True}, {"thresholds": 1}, ["MODEL.TOY.SIZE", "expected int", "got bool"]),
        ({"NAME": "Toy", "SIZE": 0}, {"thresholds": 1}, ["MODEL.TOY: Toy: size must be 1 or more, got 0"]),
        ({"NAME": "Toy"}, {}, ["Toy needs MODEL.TOY.THRESHOLDS"]),
        ({"NAME": "Toy", "THRESHOLDS": 1}, {"thresholds": 7}, ["MODEL.TOY.THRESHOLDS", "detectron2's own key", "7"]),
        ({"NAME": "", "SIZE": 3}, {}, ["MODEL.TOY.NAME is empty", "SIZE"]),
    ],
)
def test_mistakes_are_named(node, context, parts):
    with pytest.raises(ConfigError) as error:
        build(node, **context)
    for part in parts:
        assert part in str(error.value)


def test_what_a_class_passes_on_itself_is_not_needed():
    """As detectron2's FCOSHead does with the number of anchors, which RetinaNetHead needs."""
    assert missing_arguments(signature_parameters(FCOSHead), {"input_shape": [], "conv_dims": []}) == ["num_classes"]
    assert "num_anchors" in missing_arguments(signature_parameters(RetinaNetHead), {})


def test_what_a_class_only_hands_through_is_needed():
    class Outer(RetinaNetHead):
        def __init__(self, *, depth=1, **kwargs):
            super().__init__(norm="", **kwargs)

    assert missing_arguments(signature_parameters(Outer), {"num_anchors": 1, "conv_dims": []}) == [
        "input_shape", "num_classes",
    ]  # fmt: skip
