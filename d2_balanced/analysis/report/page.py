"""The page: one HTML file that needs no other one."""

from __future__ import annotations

import os
from typing import Dict, List

from ...utils.page import png_source
from ...utils.page import write_page as write_page_of
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
    write_page_of(
        path, os.path.join(os.path.dirname(__file__), "template.html"),
        data=data,
        images=int(sum(next(iter(counts.values()))["images"][0] for _, _, counts in data.recording.windows)),
        groups=[(_KINDS[kind], kind, [f for f in findings if f.kind == kind]) for kind in _KINDS],
        limits=LIMITS,
        sections=[_section(section, figures, data.missing) for section in SECTIONS],
        pictures=[png_source(picture) for picture in pictures],
    )


def _section(section, figures, missing):
    shown = [(name, png_source(figures[name])) for name in section.figures if name in figures]
    why = missing.get(f"{section.key} in part", "") if shown else missing.get(section.key, section.needs)
    return {"title": section.title, "reading": section.reading, "figures": shown, "why": why}
