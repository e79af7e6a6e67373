"""The page: one HTML file that needs no other one."""

from __future__ import annotations

import base64
import os
from typing import Dict, List

import jinja2

from ...utils.atomic import atomic_write
from .findings import LIMITS, Finding
from .sections import SECTIONS

__all__ = ["write_page"]

_KINDS = {"suggests": "Out of balance", "balanced": "Looked at, within the limit", "unknown": "Could not be judged"}


def write_page(data, findings: List[Finding], figures: Dict[str, str], pictures: List[str], path: str) -> None:
    """Write the report to ``path``.

    Args:
        data: ``gather.RunData``.
        figures: ``{name: path of the PNG}``; those that ``sections.py`` names are shown.
        pictures: paths of the pictures of RoIs.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(os.path.dirname(__file__)), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    text = environment.get_template("template.html").render(
        data=data,
        images=int(sum(next(iter(counts.values()))["images"][0] for _, _, counts in data.recording.windows)),
        groups=[(_KINDS[kind], kind, [f for f in findings if f.kind == kind]) for kind in _KINDS],
        limits=LIMITS,
        sections=[_section(section, figures, data.missing) for section in SECTIONS],
        pictures=[_embedded(picture) for picture in pictures],
    )
    with atomic_write(path, "w") as file:
        file.write(text)


def _section(section, figures, missing):
    shown = [(name, _embedded(figures[name])) for name in section.figures if name in figures]
    why = missing.get(f"{section.key} in part", "") if shown else missing.get(section.key, section.needs)
    return {"title": section.title, "reading": section.reading, "figures": shown, "why": why}


def _embedded(path: str) -> str:
    with open(path, "rb") as file:
        return "data:image/png;base64," + base64.b64encode(file.read()).decode("ascii")
