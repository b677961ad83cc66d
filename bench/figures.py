# SPDX-License-Identifier: Apache-2.0
"""The figures that must hold, computed from measured runs, and the table of these. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from bench.family import FULL, QUICK, Family
from bench.measure import Run

MB = 10**6
_BLOCK = 64 << 20
_SLACK = 64 << 10


@dataclass(frozen=True, slots=True)
class Part:
    """One number of a figure and the most that it may be; `value` is None where nothing was measured."""

    label: str
    value: float | None
    bound: float
    unit: str = ""

    @property
    def ok(self) -> bool:
        """Whether it holds, to the digits that are shown."""
        return self.value is not None and float(_number(self.value)) <= float(_number(self.bound))

    def __str__(self) -> str:
        value = "not measured" if self.value is None else f"{_number(self.value)}{self.unit}"
        return f"{self.label} {value} (≤ {_number(self.bound)})"


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure: its number, what it is, the scenarios that it needs, and whether the small family will do."""

    number: int
    name: str
    scenarios: tuple[str, ...]
    quick: bool
    parts: Callable[[Runs], Iterator[Part]]


class Runs:
    """Measured runs of one family, to be chosen from."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self.all = list(runs)
        self.family: Family = QUICK if any(run.image in QUICK.everything for run in self.all) else FULL

    def of(self, scenario: str, who: str, image: str | None = None, endpoint: str | None = None) -> list[Run]:
        """The runs of that kind."""
        return [
            run
            for run in self.all
            if (run.scenario, run.who) == (scenario, who)
            and image in (None, run.image)
            and endpoint in (None, run.endpoint)
        ]

    def ratio(
        self,
        scenario: str,
        of: str,
        to: str,
        *,
        value: Callable[[Run], float] = lambda run: run.wall,
        image: str | None = None,
        endpoint: str | None = None,
    ) -> float | None:
        """The median of the ratios within each round; of several runs in a round the sum counts.

        What has no endpoint (a save) is compared with runs against any. None where there is no round with both.
        """
        sums: list[dict[int, float]] = [{}, {}]
        for side, who in zip(sums, (of, to), strict=True):
            for run in self.of(scenario, who, image):
                if endpoint is None or run.endpoint in (endpoint, ""):
                    side[run.round] = side.get(run.round, 0.0) + value(run)
        ratios = [sums[0][number] / sums[1][number] for number in sums[0] if sums[1].get(number)]
        return median(ratios) if ratios else None


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 10 or value == int(value) else f"{value:.2f}"


def _largest(values: Iterable[float]) -> float | None:
    return max(values, default=None)


def _scaled(value: float | None, by: float) -> float | None:
    return None if value is None else value / by


# -- the figures -------------------------------------------------------------------------


def _to_save(runs: Runs) -> Iterator[Part]:
    for label, image, bound in (("A", runs.family.a, 1.20), ("B", runs.family.b, 1.12)):
        yield Part(label, runs.ratio("first", "ours", "save", image=image, endpoint="null"), bound)


def _to_upstream(runs: Runs) -> Iterator[Part]:
    for endpoint, more in (("null", 0.0), ("site", 0.05)):
        for label, image, bound in (("A", runs.family.a, 0.85), ("B", runs.family.b, 0.75)):
            value = runs.ratio("first", "ours", "upstream", image=image, endpoint=endpoint)
            yield Part(f"{label} {endpoint}", value, bound + more)


def _cpu(runs: Runs) -> Iterator[Part]:
    for label, image, bound in (("A", runs.family.a, 0.58), ("B", runs.family.b, 0.52)):
        yield Part(
            label,
            runs.ratio("first", "ours", "upstream", value=lambda run: run.cpu, image=image, endpoint="null"),
            bound,
        )


def _memory(runs: Runs) -> Iterator[Part]:
    family = runs.family
    peaks = [_largest(run.memory for run in runs.of("first", "ours", image)) for image in (family.small, family.b)]
    yield Part("small", _scaled(peaks[0], MB), 320, " MB")
    yield Part("B", _scaled(peaks[1], MB), 320, " MB")
    if not runs.family.quick:
        yield Part("B ÷ small", peaks[1] / peaks[0] if peaks[0] and peaks[1] else None, 1.10)


def _disk(runs: Runs) -> Iterator[Part]:
    """A file of the size of the image, and the few pages of its folder."""
    for label, scenario, who, bound in (("--no-cache", "first", "ours", 0.0), ("default", "tarball", "ours", 1.0)):
        found = runs.of(scenario, who, runs.family.a)
        yield Part(label, _largest(round(run.disk / run.size, 3) for run in found), bound, " × image")


def _next_version(runs: Runs) -> Iterator[Part]:
    found = runs.of("next", "ours")
    sent = max(found, key=lambda run: run.sent - run.allowed, default=None)
    yield Part("sent", sent.sent / 1024 if sent else None, ((sent.allowed if sent else 0) + _SLACK) / 1024, " KiB")


def _stored(runs: Runs) -> Iterator[Part]:
    found = runs.of("family", "ours")
    yield Part("bytes", _over(found, lambda run: run.stored, lambda run: run.size), 0.34)


def _blocks(runs: Runs) -> Iterator[Part]:
    for label, found in (
        ("images", runs.of("first", "ours") + runs.of("family", "ours")),
        ("many layers", runs.of("many-layers", "ours")),
    ):
        more = [run.blocks - run.aligned - run.size / _BLOCK for run in found]
        yield Part(f"{label}: beyond size/64 MiB + aligned", _largest(more), 3)


def _together(runs: Runs) -> Iterator[Part]:
    yield Part("wall", runs.ratio("together", "ours", "save"), 0.45)


def _again(runs: Runs) -> Iterator[Part]:
    yield Part("wall", runs.ratio("again", "ours", "upstream"), 0.9)
    yield Part("requests", _largest(run.requests for run in runs.of("again", "ours")), 6)


def _start(runs: Runs) -> Iterator[Part]:
    yield Part("wall", runs.ratio("start", "ours", "python"), 4)


def _load(runs: Runs) -> Iterator[Part]:
    yield Part("wall", runs.ratio("load", "ours", "docker load"), 1.3)


def _load_next(runs: Runs) -> Iterator[Part]:
    for engine in ("docker", "podman"):
        scenario = f"load-next-{engine}"
        found = runs.of(scenario, "next version")
        over = _largest((run.read - run.allowed) / _BLOCK for run in found)
        yield Part(f"{engine}: read beyond what changed", None if over is None else max(over, 0.0), 1, " blocks")
        yield Part(f"{engine}: wall", runs.ratio(scenario, "next version", "in full"), 0.3)


def _over(runs: Sequence[Run], above: Callable[[Run], float], below: Callable[[Run], float]) -> float | None:
    total = sum(map(below, runs))
    return sum(map(above, runs)) / total if total else None


FIGURES = (
    Figure(1, "first ingest ÷ docker save", ("first",), False, _to_save),
    Figure(2, "first ingest ÷ upstream", ("first", "first-site"), False, _to_upstream),
    Figure(3, "client CPU ÷ upstream", ("first",), False, _cpu),
    Figure(4, "peak memory", ("first",), True, _memory),
    Figure(5, "client disk", ("first", "tarball"), True, _disk),
    Figure(6, "next version: bytes sent", ("next",), True, _next_version),
    Figure(7, "stored ÷ logical, whole family", ("family",), False, _stored),
    Figure(8, "blocks of an image", ("first", "many-layers"), True, _blocks),
    Figure(9, "versions at once ÷ single saves", ("together",), False, _together),
    Figure(10, "already stored ÷ upstream", ("again",), True, _again),
    Figure(11, "--help ÷ python", ("start",), True, _start),
    Figure(12, "load ÷ docker load", ("load",), False, _load),
    Figure(13, "load of the next version", ("load-next",), False, _load_next),
)


def figure_lines(figures: Iterable[Figure], runs: Runs) -> tuple[list[str], bool]:
    """A line for each figure, and whether all of them hold."""
    lines, well = [], True
    for figure in figures:
        parts = list(figure.parts(runs))
        ok = all(part.ok for part in parts)
        lines.append(f"{figure.number:2}  {figure.name:33} {', '.join(map(str, parts))}  {'ok' if ok else 'short'}")
        well &= ok
    return lines, well


# -- the table ---------------------------------------------------------------------------

_HEAD = ("what", "image", "endpoint", "who", "n", "wall s (min–max)", "÷ save", "÷ upstream", "CPU s", "memory MB")
_MORE = ("disk MB", "requests", "sent MB", "new MB", "read MB")


def table(runs: Runs) -> str:
    """The medians of all that was measured, as Markdown."""
    groups: dict[tuple[str, str, str, str], list[Run]] = {}
    for run in runs.all:
        groups.setdefault((run.scenario, run.image, run.endpoint, run.who), []).append(run)
    rows = [_row(runs, key, found) for key, found in groups.items()]
    lines = [(*_HEAD, *_MORE), tuple("---" for _ in (*_HEAD, *_MORE)), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _row(runs: Runs, key: tuple[str, str, str, str], found: list[Run]) -> tuple[str, ...]:
    scenario, image, endpoint, who = key
    walls = [run.wall for run in found]
    ratios = [
        "" if who == to else _ratio(runs.ratio(scenario, who, to, image=image, endpoint=endpoint))
        for to in ("save", "upstream")
    ]
    sizes = [
        f"{median(values) / MB:.1f}"
        for values in zip(*((r.disk, r.sent, r.stored, r.read) for r in found), strict=True)
    ]
    return (
        *(scenario, image, endpoint, who, str(len(found))),
        f"{median(walls):.2f} ({min(walls):.2f}–{max(walls):.2f})",
        *ratios,
        f"{median(run.cpu for run in found):.2f}",
        f"{max(run.memory for run in found) / MB:.0f}",
        sizes[0],
        f"{median(run.requests for run in found):.0f}",
        *sizes[1:],
    )


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
