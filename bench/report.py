# SPDX-License-Identifier: Apache-2.0
"""Results for people: the plots of docs/performance.md, and the tables in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import median

from bench.figures import FIGURES, MB, Runs, figure_lines, table
from bench.measure import Run, line

#: The colours of the bars, which differ in lightness too.
_COLOURS = {"save": "#9aa5b1", "docker load": "#9aa5b1", "ours": "#1f6f8b", "upstream": "#e0a458"}
_WIDTH, _LEFT, _ROW, _SPACE = 720, 190, 20, 12


@dataclass(frozen=True, slots=True)
class Plot:
    """Bars of one value: a group for each image, a bar for who did it."""

    file: str
    title: str
    scenario: str
    who: tuple[str, ...]
    value: Callable[[Run], float]
    unit: str
    endpoint: str = "null"


PLOTS = (
    Plot(
        "first-wall",
        "First ingest, null endpoint: seconds",
        "first",
        ("save", "ours", "upstream"),
        lambda r: r.wall,
        "s",
    ),
    Plot(
        "first-cpu",
        "First ingest, null endpoint: CPU seconds of the client",
        "first",
        ("ours", "upstream"),
        lambda r: r.cpu,
        "s",
    ),
    Plot("first-memory", "First ingest: peak memory", "first", ("ours", "upstream"), lambda r: r.memory / MB, "MB"),
    Plot(
        "next-sent",
        "Next version, one layer changed: bytes sent",
        "next",
        ("ours", "upstream"),
        lambda r: r.sent / MB,
        "MB",
    ),
    Plot(
        "load-wall",
        "Out of Keep into an empty engine: seconds",
        "load",
        ("docker load", "ours"),
        lambda r: r.wall,
        "s",
        "site",
    ),
)


def publish(runs: Runs, results: Path, docs: Path) -> None:
    """Keeps the runs as `published.jsonl`, draws the plots, and writes the tables into performance.md."""
    (results / "published.jsonl").write_text("".join(f"{line(run)}\n" for run in runs.all))
    folder = docs / "performance"
    folder.mkdir(exist_ok=True)
    for plot in PLOTS:
        if drawn := drawing(plot, runs):
            (folder / f"{plot.file}.svg").write_text(drawn)
    lines, _ = figure_lines(FIGURES, runs)
    page = docs / "performance.md"
    text = _between(page.read_text(), "figures", "```text\n" + "\n".join(lines) + "\n```\n")
    page.write_text(_between(text, "runs", table(runs)))


def _between(text: str, name: str, content: str) -> str:
    """The text with the content between the comments of that name."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    return re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n{content}\n{end}", text, flags=re.DOTALL)


def drawing(plot: Plot, runs: Runs) -> str:
    """The plot as SVG; empty where nothing of it was measured."""
    family = runs.family
    groups: list[tuple[str, list[tuple[str, float]]]] = []
    for image in dict.fromkeys((family.small, family.a, family.after, family.b)):
        bars = []
        for who in plot.who:
            found = [plot.value(r) for r in runs.of(plot.scenario, who, image) if r.endpoint in ("", plot.endpoint)]
            if found:
                bars.append((who, median(found)))
        if bars:
            groups.append((image, bars))
    return bars_of(plot.title, groups, plot.unit) if groups else ""


def bars_of(title: str, groups: Sequence[tuple[str, Sequence[tuple[str, float]]]], unit: str) -> str:
    """Horizontal bars in groups, as a picture that needs nothing else."""
    most = max(value for _, bars in groups for _, value in bars) or 1.0
    scale = (_WIDTH - _LEFT - 90) / most
    parts, y = [f'<text x="0" y="16" font-weight="bold">{escape(title)}</text>'], 34
    for group, bars in groups:
        parts.append(f'<text x="0" y="{y + 14}">{escape(group)}</text>')
        for who, value in bars:
            width = value * scale
            parts.append(f'<text x="{_LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(who)}</text>')
            parts.append(f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_ROW - 3}" fill="{_COLOURS[who]}"/>')
            number = f"{value:.0f}" if value >= 100 else f"{value:.1f}"
            parts.append(f'<text x="{_LEFT + width + 6:.1f}" y="{y + 14}">{number} {escape(unit)}</text>')
            y += _ROW
        y += _SPACE
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" width="{_WIDTH}" height="{y}" '
        'font-family="sans-serif" font-size="13" fill="#222">\n'
        f'<rect width="{_WIDTH}" height="{y}" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )
