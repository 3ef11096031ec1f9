"""Draw a DAG: as Mermaid text, and as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tidemill_core.dag.expand import Step
from tidemill_core.dag.graph import levels

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 190, 44, 70, 18, 24
_STYLE = """
body{font:14px system-ui,sans-serif;margin:2rem;color:#1b2733;background:#fff}
svg{max-width:100%;height:auto}
rect{fill:#eef4fa;stroke:#5b7fa3;rx:6px} rect.run{fill:#f3f0e8;stroke:#a38f5b} rect.use{fill:#e9f5ec;stroke:#5b9c6d}
text{font:12px system-ui,sans-serif;fill:#1b2733} text.kind{fill:#6b7a88;font-size:10px}
path{fill:none;stroke:#9aa7b4;stroke-width:1.4} path.rule{stroke-dasharray:5 4}
@media (prefers-color-scheme:dark){body{background:#12181f;color:#e6edf3}text{fill:#e6edf3}
rect{fill:#1d2a38}rect.run{fill:#2b281d}rect.use{fill:#1c2d22}text.kind{fill:#9aa7b4}}
"""


def mermaid(steps: Sequence[Step]) -> str:
    """Write the graph in Mermaid's language; a dashed arrow is a trigger rule."""
    ids = {step.name: f"t{index}" for index, step in enumerate(steps)}
    lines = ["flowchart LR"]
    for step in steps:
        left, right = ("([", "])") if step.task.run is not None else ("[[", "]]") if step.task.use else ("[", "]")
        lines.append(f'    {ids[step.name]}{left}"{step.name}"{right}')
    for step in steps:
        arrow = "-->" if step.task.trigger == "all_success" else f"-. {step.task.trigger} .->"
        lines += [f"    {ids[need]} {arrow} {ids[step.name]}" for need in step.needs]
    return "\n".join(lines) + "\n"


def html(title: str, description: str, steps: Sequence[Step]) -> str:
    """Draw the graph as a page with one SVG: no script, no network."""
    places = _places(steps)
    width = max((x for x, _ in places.values()), default=0) + _WIDTH + _MARGIN
    height = max((y for _, y in places.values()), default=0) + _HEIGHT + _MARGIN
    parts = [_edge(places[need], places[step.name], step) for step in steps for need in step.needs]
    parts += [_box(places[step.name], step) for step in steps]
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">{"".join(parts)}</svg>'
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1><p>{escape(description)}</p>{svg}</body></html>\n"
    )


def _places(steps: Sequence[Step]) -> dict[str, tuple[int, int]]:
    column = levels({step.name: step.needs for step in steps})
    used: dict[int, int] = {}
    places = {}
    for step in steps:
        x, row = column[step.name], used.get(column[step.name], 0)
        used[x] = row + 1
        places[step.name] = (_MARGIN + x * (_WIDTH + _GAP_X), _MARGIN + row * (_HEIGHT + _GAP_Y))
    return places


def _edge(start: tuple[int, int], end: tuple[int, int], step: Step) -> str:
    x1, y1, x2, y2 = start[0] + _WIDTH, start[1] + _HEIGHT // 2, end[0], end[1] + _HEIGHT // 2
    middle = (x1 + x2) // 2
    rule = "" if step.task.trigger == "all_success" else ' class="rule"'
    return f'<path{rule} d="M{x1} {y1}C{middle} {y1} {middle} {y2} {x2} {y2}"/>'


def _box(place: tuple[int, int], step: Step) -> str:
    task, (x, y) = step.task, place
    kind, what = task.work
    name = step.name if len(step.name) < 28 else f"{step.name[:26]}.."  # noqa: PLR2004 - fits the box
    return (
        f'<g><title>{escape(step.name)}: {escape(what)}</title><rect class="{kind}" x="{x}" y="{y}" '
        f'width="{_WIDTH}" height="{_HEIGHT}"/><text x="{x + 10}" y="{y + 19}">{escape(name)}</text>'
        f'<text class="kind" x="{x + 10}" y="{y + 34}">{kind} {escape(what[:28])}</text></g>'
    )
