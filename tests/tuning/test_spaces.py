"""What is searched for one key, as it is written on the command line."""

import re

import pytest

from d2_balanced.tuning.spaces import parse_search, parse_space
from d2_balanced.utils.errors import ConfigError


def test_commas_in_brackets_separate_nothing():
    space = parse_space("KEY", "(0.5,0.6), [1, 2] ,RandomSampler")
    assert space.values == ("(0.5,0.6)", "[1, 2]", "RandomSampler")
    assert not space.is_edge("RandomSampler")


def test_listed_numbers_have_ends():
    space = parse_space("KEY", "0.02,0.01,1e-1")
    assert [space.is_edge(value) for value in space.values] == [False, True, True]
    assert [space.at(k / 3) for k in range(3)] == list(space.values)


@pytest.mark.parametrize("text, options, low, middle, high", [
    ("1..9", {}, 1, 5, 9),
    ("1.0..9", {}, 1, 5, 9),
    ("log:0.001..0.1", {}, 0.001, 0.01, 0.1),
    ("1..100", {"log": True, "real": True}, 1, 10, 100),
])  # fmt: skip
def test_ranges_are_covered_from_end_to_end(text, options, low, middle, high):
    space = parse_space("KEY", text, **options)
    assert [space.at(x) for x in (0.0, 0.5, 1.0)] == pytest.approx([low, middle, high])
    assert space.is_edge(low) and space.is_edge(high) and not space.is_edge(middle)


def test_numbers_can_be_typed_and_whole_ones_stay_whole():
    assert parse_space("KEY", "1..9").text(3) == "3" and parse_space("KEY", "1..9").whole
    assert parse_space("KEY", "1..9", real=True).text(3) == "3.0"
    assert parse_space("KEY", "0.0..1").text(0.123456789) == "0.1235"


@pytest.mark.parametrize("text, options", [
    ("0.1", {}), ("0.1,0.1", {}), ("0.1,,0.2", {}), ("", {}), ("2..1", {}), ("1..1", {}), ("a..b", {}), ("0..inf", {}),
    ("log:0..1", {}), ("-1..1", {"real": True}), ("0.1,0", {"real": True}), ("0.1,fast", {"real": True}),
])  # fmt: skip
def test_what_is_no_space_is_refused_with_its_key(text, options):
    with pytest.raises(ConfigError, match=f"^KEY={text}: ".replace(".", r"\.")):
        parse_space("KEY", text, **options)


def test_a_search_is_of_all_arms_or_of_one():
    assert parse_search("A.B=1,2") == (None, "A.B", parse_space("A.B", "1,2"))
    assert parse_search("rga:A.B=log:1..9")[:2] == ("rga", "A.B") and parse_search("rga:A.B=log:1..9").space.log
    for text in ("A.B", "=1,2", ":A.B=1,2", "A.B="):
        with pytest.raises(ConfigError, match=re.escape(f"--search {text}: write")):
            parse_search(text)
