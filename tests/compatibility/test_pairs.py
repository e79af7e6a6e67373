"""Every pair of choices trains, or is refused at build time naming both; none fails otherwise, none is without effect.

The outcomes are those of docs/COMPATIBILITY.md (written by ``python tests/compatibility/document.py``).
"""

import choices
import document
import pytest
from outcomes import is_neutral, outcome_alone, outcome_of, without_effect

from d2_balanced.config import get_balanced_cfg
from d2_balanced.config.check_yacs import spec_registries
from d2_balanced.modeling.spec import build_component

DOCUMENTED = document.read()
WRITE = "python tests/compatibility/document.py writes the page anew"


def named(choice, message):
    return any(word.lower() in message.lower() for word in choice.words)


@pytest.mark.parametrize("pair", [pytest.param(pair, id=" x ".join(c.name for c in pair)) for pair in choices.pairs()])
def test_pair(pair):
    outcome = outcome_of(*pair)  # everything but a ValueError at build time fails here
    documented = DOCUMENTED.pairs.get(tuple(choice.name for choice in pair))
    if outcome.refusal:
        assert [choice.name for choice in pair if not named(choice, str(outcome.refusal))] == [], outcome.refusal
        assert documented == document.why(outcome.refusal), WRITE
    else:
        assert without_effect(pair, outcome) == []
        assert documented is None, WRITE


# Those that include the other choice, which gives them what they ask for, are left out.
ONLY_ALIKE = [pair for pair in choices.alike() if not pair[1].settings.items() <= pair[0].settings.items()]


@pytest.mark.parametrize("choice, like", ONLY_ALIKE, ids=lambda choice: choice.name)
def test_choices_that_are_alike_ask_for_nothing_else(choice, like):
    assert asked_by(choice) <= asked_by(like)


ASKED = (
    "sees", "wants_ious", "wants_log_variances", "form", "reads_boxes", "takes_all_proposals", "chooses",
    "wants_variances", "joint",
)  # fmt: skip


def asked_by(choice):
    """What a component asks for beside what every one of its seat is given (``cls_losses/seat.py``, ``box_losses/seat.py``,
    ``sample_weights/seat.py``, ``suppression/seat.py``)."""
    seats = ("_LOSS.NAME", "_WEIGHTS.NAME", ".NMS.NAME")
    key = next(key for key in choice.settings if key.endswith(seats))[: -len(".NAME")]
    node = {k[len(key) + 1 :]: value for k, value in choice.settings.items() if k.startswith(key + ".")}
    component = build_component(spec_registries()[key], node, key)
    asked = {(name, getattr(component, name, None)) for name in ASKED}
    return {(name, value) for name, value in asked if value not in (None, "", "deltas", False)}


@pytest.mark.parametrize("choice", [*choices.all_choices(), *(c for c, _ in choices.alike())], ids=lambda c: c.name)
def test_choice_alone_trains_and_makes_a_difference(choice):
    assert outcome_alone(choice).refusal is None
    assert is_neutral(choice) == (choice.name == "StandardROIHeads")  # which BalancedROIHeads is, by default


@pytest.mark.parametrize("choice", choices.REFUSED_ALONE, ids=lambda choice: choice.name)
def test_refused_beside_anything(choice):
    message = str(outcome_of(choice).refusal)
    assert named(choice, message)
    assert DOCUMENTED.alone[choice.name] == message, WRITE


def test_page_is_what_is_generated():
    with open(document.PATH, encoding="utf-8") as file:
        assert file.read() == document.render(DOCUMENTED), WRITE


def test_every_registered_component_is_among_the_choices():
    defaults = get_balanced_cfg()
    for key, registry in spec_registries().items():
        node = defaults
        for part in key.split("."):
            node = node[part]
        alike = (choice for choice, _ in choices.alike())
        chosen = {c.settings.get(f"{key}.NAME") for c in (*choices.all_choices(), *choices.REFUSED_ALONE, *alike)}
        missing = {name for name, _ in registry} - chosen - {node.NAME}
        assert not missing - in_other_seats(registry, key), f"{key}: {missing}"


def in_other_seats(registry, key):
    """What a registry of several seats has at another one; at each there is a component other than the default."""
    seats = [other for other, same in spec_registries().items() if same is registry and other != key]
    every = [*choices.all_choices(), *(choice for choice, _ in choices.alike())]
    return {c.settings.get(f"{seat}.NAME") for seat in seats for c in every}
