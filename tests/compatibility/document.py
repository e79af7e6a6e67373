"""docs/COMPATIBILITY.md from the outcomes of all pairs; as a program, it writes the file."""

import os
import re
import sys
from typing import Any, Dict, NamedTuple, Tuple

if __name__ == "__main__":
    TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    sys.path[:0] = [os.path.dirname(TESTS), TESTS, os.path.join(TESTS, "config")]
    import conftest  # noqa: F401  (as the tests do, first)

import choices
from paths import ROOT

from d2_balanced.utils.errors import Refusal

PATH = os.path.join(ROOT, "docs", "COMPATIBILITY.md")
_BETWEEN = "; "
_HEAD = """\
# What goes together

*Generated: `python tests/compatibility/document.py` writes this page, and the tests compare it with what they see.*

**Every choice goes with every choice at another seat, but for those listed under "Refused".** The tests try each pair
in a small detector from a yacs config. Either it is refused when it is built, with a message that names both sides and
says what to do; or it takes a training step and an inference step, every trained weight gets a gradient, and neither of
the two choices is without effect: losses, gradients or detections are others than with either of them alone. A seat
where nothing is chosen has detectron2's default (Faster R-CNN, FPN, a fixed threshold, random sampling, one stage, one
branch, L1, no masks).
"""


class Why(NamedTuple):
    """Why two choices are refused. Of a ``Refusal``, without the setting that it starts with: one reason for several."""

    reason: str
    remedy: str = ""


class Outcomes(NamedTuple):
    """What the page tells."""

    pairs: Dict[Tuple[str, str], Why]
    """The pairs of choices, by name, that are refused; all others train."""
    alone: Dict[str, str]
    """The messages with which the choices of ``REFUSED_ALONE`` are refused."""


def why(error: ValueError) -> Why:
    """What the page tells of an error at build time."""
    if isinstance(error, Refusal):
        return Why(f"{error.other}: {error.reason}", error.remedy)
    return Why(str(error))


def render(outcomes: Outcomes) -> str:
    """The page."""
    refused = [[*sides, _code(w.reason), w.remedy] for w in _reasons(outcomes) for sides in _sides(outcomes, w)]
    alone = [[name, _code(message)] for name, message in outcomes.alone.items()]
    others = [[choice.name, _settings(choice), like.name] for choice, like in choices.alike()]
    return "\n".join([
        _HEAD,
        "## Refused\n",
        _table(["this", "with any of these", "because of", "what to do"], refused),
        "\n## Refused beside anything\n",
        _table(["what", "message"], alone),
        "\n## Choices\n",
        _table(["seat", "choice", "settings"], [[s, c.name, _settings(c)] for s, cs in choices.SEATS.items() for c in cs]),
        "\nThese train alone. They ask for nothing that the choice beside them does not ask for, so its pairs are theirs.\n",
        _table(["choice", "settings", "goes with what this goes with"], others),
        "",
    ])  # fmt: skip


def _reasons(outcomes):
    in_order = [outcomes.pairs.get((first.name, second.name)) for first, second in choices.pairs()]
    return list(dict.fromkeys(filter(None, in_order)))


def _sides(outcomes, reason):
    """Rows ``[first choices, second choices]`` of the pairs that are refused for this reason."""
    seconds = {}
    for (first, second), each in outcomes.pairs.items():
        if each == reason:
            seconds.setdefault(first, []).append(second)
    firsts = {}
    for first, names in seconds.items():
        firsts.setdefault(_BETWEEN.join(names), []).append(first)
    return [[_BETWEEN.join(names), second] for second, names in firsts.items()]


def _settings(choice) -> str:
    base = [f"`configs/quick/{choice.base}`"] if choice.base else []
    # Sizes, which only make the model small, are left out.
    shown = {k: v for k, v in choice.settings.items() if not re.search(r"POOLER_RESOLUTION|CONV_DIM|_DIMS|_CONV$", k)}
    return ", ".join(base + [f"`{key} {_word(value)}`" for key, value in shown.items()])


def _word(value: Any) -> str:
    return str(value) if isinstance(value, (str, int, float)) else f'"{value}"'


def _code(text: str) -> str:
    return f"`{text}`"


def _table(head, rows) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _rows(text, title):
    """The cells of the table below a title."""
    table = text.split(f"\n## {title}\n", 1)[-1].split("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("| ")][2:]
    return [[cell.replace(r"\|", "|") for cell in re.split(r" \| ", line[2:-2])] for line in lines]


def read() -> Outcomes:
    """What the page in docs/ tells."""
    with open(PATH, encoding="utf-8") as file:
        text = file.read()
    pairs = {}
    for firsts, seconds, reason, remedy in _rows(text, "Refused"):
        for first in firsts.split(_BETWEEN):
            pairs.update({(first, second): Why(reason[1:-1], remedy) for second in seconds.split(_BETWEEN)})
    alone = {name: message[1:-1] for name, message in _rows(text, "Refused beside anything")}
    return Outcomes(pairs, alone)


def write() -> None:
    """Work out all outcomes, and write the page."""
    from outcomes import outcome_of

    refusals = {(a.name, b.name): outcome_of(a, b).refusal for a, b in choices.pairs()}
    pairs = {names: why(refusal) for names, refusal in refusals.items() if refusal}
    alone = {choice.name: str(outcome_of(choice).refusal) for choice in choices.REFUSED_ALONE}
    with open(PATH, "w", encoding="utf-8") as file:
        file.write(render(Outcomes(pairs, alone)))


if __name__ == "__main__":
    write()
    print(f"Written: {os.path.relpath(PATH)}")
