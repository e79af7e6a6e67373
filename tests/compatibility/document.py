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

PATH = os.path.join(ROOT, "docs", "COMPATIBILITY.md")
TRAINS = "✓"
SAME_SEAT = "·"
_HEAD = """\
# What goes together

*Generated: `python tests/compatibility/document.py` writes this page, and the tests compare it with what they see.*

Every two choices that do not stand at the same seat were built into a small detector from a yacs config. Either it is
refused when it is built, with a message that names both; or it takes a training step and an inference step, every
trained weight gets a gradient, and neither of the two choices is without effect: losses, gradients or detections are
others than with either of them alone. A seat where nothing is chosen has detectron2's default (Faster R-CNN, FPN, a
fixed threshold, random sampling, one stage, one branch, L1, no masks).
"""


class Outcomes(NamedTuple):
    """What the page tells."""

    pairs: Dict[Tuple[str, str], str]
    """The reason (see :func:`reason`) for which two choices, by name, are refused; empty where they train."""
    alone: Dict[str, str]
    """The messages with which the choices of ``REFUSED_ALONE`` are refused."""


def reason(message: str) -> str:
    """The message of a refusal without the setting that it starts with, so that one reason serves several settings."""
    ignored = re.match(r"\S+ is set(?: to .*)?, but (.*? would (?:ignore|read) .*?)(?:[.;] .*|\.)?$", message)
    return f"... is set, but {ignored.group(1)}" if ignored else message


def render(outcomes: Outcomes) -> str:
    """The page."""
    in_order = [outcomes.pairs.get((first.name, second.name)) for first, second in choices.pairs()]
    reasons = list(dict.fromkeys(filter(None, in_order)))
    cells = {pair: str(reasons.index(why) + 1) if why else TRAINS for pair, why in outcomes.pairs.items()}
    parts = [
        _HEAD,
        "## Choices\n",
        _choices_table(),
        "\n## Pairs\n",
        f"{TRAINS} trains; a number: refused, for the reason below; {SAME_SEAT} one seat, one choice.\n",
        _matrix(cells),
        "\n" + "\n".join(f"{number}. `{why}`" for number, why in enumerate(reasons, start=1)),
        "\n## Refused beside anything\n",
        "\n".join(f"- {name}: `{message}`" for name, message in outcomes.alone.items()) + "\n",
    ]
    return "\n".join(parts)


def _choices_table() -> str:
    rows, number = ["| | seat | choice | settings |", "| --- | --- | --- | --- |"], 0
    for seat, chosen in choices.SEATS.items():
        for choice in chosen:
            number += 1
            rows.append(f"| {number} | {seat} | {choice.name} | {_settings(choice)} |")
    return "\n".join(rows)


def _settings(choice) -> str:
    base = [f"`configs/quick/{choice.base}`"] if choice.base else []
    # Sizes, which only make the model small, are left out.
    shown = {k: v for k, v in choice.settings.items() if not re.search(r"POOLER_RESOLUTION|CONV_DIM|_DIMS|_CONV$", k)}
    return ", ".join(base + [f"`{key} {_word(value)}`" for key, value in shown.items()])


def _word(value: Any) -> str:
    return str(value) if isinstance(value, (str, int, float)) else f'"{value}"'


def _matrix(cells) -> str:
    names = [choice.name for choice in choices.all_choices()]
    rows = ["| | | " + " | ".join(str(n) for n in range(1, len(names))) + " |", "| --- " * (len(names) + 1) + "|"]
    for i, name in enumerate(names):
        row = [cells.get((names[j], name), SAME_SEAT) for j in range(i)] + [""] * (len(names) - 1 - i)
        rows.append(f"| {i + 1} | {name} | " + " | ".join(row) + " |")
    return "\n".join(rows)


def read() -> Outcomes:
    """What the page in docs/ tells."""
    with open(PATH, encoding="utf-8") as file:
        text = file.read()
    reasons = dict(re.findall(r"^(\d+)\. `(.*)`$", text, flags=re.MULTILINE))
    alone = dict(re.findall(r"^- (.*?): `(.*)`$", text, flags=re.MULTILINE))
    names = [choice.name for choice in choices.all_choices()]
    rows = text.split("## Pairs")[1].split("## Refused")[0] if "## Pairs" in text else ""
    pairs = {}
    for i, name in enumerate(names):
        cells = re.findall(rf"^\| {i + 1} \| {re.escape(name)} \| (.*) \|$", rows, flags=re.MULTILINE)
        for j, cell in enumerate(cells[0].split(" | ")[:i] if cells else ()):
            if cell != SAME_SEAT:
                pairs[names[j], name] = "" if cell == TRAINS else reasons[cell]
    return Outcomes(pairs, alone)


def write() -> None:
    """Work out all outcomes, and write the page."""
    from outcomes import outcome_of

    pairs = {}
    for first, second in choices.pairs():
        pairs[first.name, second.name] = reason(outcome_of(first, second).refusal)
    alone = {choice.name: outcome_of(choice).refusal for choice in choices.REFUSED_ALONE}
    with open(PATH, "w", encoding="utf-8") as file:
        file.write(render(Outcomes(pairs, alone)))


if __name__ == "__main__":
    write()
    print(f"Written: {os.path.relpath(PATH)}")
