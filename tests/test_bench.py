# SPDX-License-Identifier: Apache-2.0
"""The measurements say what was measured: medians of ratios within rounds, and no figure holds that nobody measured."""

from __future__ import annotations

import hashlib
import os
import sys
import xml.etree.ElementTree
from pathlib import Path

import arvados
import pytest

from bench.endpoint import Counts, serving
from bench.family import FULL, MIB, Contents
from bench.figures import FIGURES, Part, Runs, figure_lines, table
from bench.measure import Failed, Run, line, measured, runs_in
from bench.report import PLOTS, drawing
from bench.scenarios import rotated


def run(who: str, wall: float, number: int = 0, **others: object) -> Run:
    """A first ingest of the usual image, so long."""
    endpoint = "" if who == "save" else "null"
    values = {"scenario": "first", "image": FULL.a, "who": who, "endpoint": endpoint, "round": number, "order": 0}
    values |= {"size": 776 * 10**6, "wall": wall, "cpu": 1.0, "memory": 10**8, "disk": 0}
    return Run(**(values | others))  # type: ignore[arg-type]


ROUNDS = [
    *(run("save", 5.0, 0), run("ours", 6.0, 0), run("upstream", 9.0, 0)),
    *(run("save", 10.0, 1), run("ours", 11.0, 1), run("upstream", 15.0, 1)),  # the machine was busy
    *(run("save", 5.0, 2), run("ours", 20.0, 2), run("upstream", 9.0, 2)),  # something came in between
]


def test_a_ratio_is_the_median_of_those_within_rounds() -> None:
    runs = Runs(ROUNDS)
    assert runs.ratio("first", "ours", "save", image=FULL.a, endpoint="null") == 1.2
    assert runs.ratio("first", "ours", "upstream") == pytest.approx(11 / 15)
    assert runs.ratio("first", "ours", "save", endpoint="site") is None
    assert runs.ratio("next", "ours", "save") is None


def test_several_runs_of_a_round_count_together() -> None:
    saves = [run("save", wall, number, scenario="together") for number in (0, 1) for wall in (2.0, 3.0, 5.0)]
    runs = Runs([*saves, *(run("ours", 4.0, number, scenario="together", endpoint="null") for number in (0, 1))])
    assert runs.ratio("together", "ours", "save") == 0.4


def test_a_round_without_both_counts_for_nothing() -> None:
    assert Runs([run("ours", 1.0, 7), *ROUNDS]).ratio("first", "ours", "save") == 1.2


@pytest.mark.parametrize(
    ("value", "bound", "ok"),
    [(1.2, 1.2, True), (1.204, 1.2, True), (1.206, 1.2, False), (7, 6, False), (None, 6, False)],
)
def test_a_bound_holds_to_the_digits_that_are_shown(value: float | None, bound: float, ok: bool) -> None:
    assert Part("", value, bound).ok is ok


def test_a_figure_is_short_where_a_part_was_not_measured() -> None:
    (said,), well = figure_lines(FIGURES[:1], Runs(ROUNDS))
    assert said.endswith("A 1.20 (≤ 1.20), B not measured (≤ 1.12)  short")
    assert not well
    large = [run(it.who, it.wall, it.round, image=FULL.b) for it in ROUNDS[3:6]]
    (said,), well = figure_lines(FIGURES[:1], Runs([*ROUNDS, *large]))
    assert said.endswith("A 1.20 (≤ 1.20), B 1.10 (≤ 1.12)  ok")
    assert well


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: str(figure.number))
def test_nothing_measured_is_no_figure_that_holds(figure: object) -> None:
    assert figure_lines([figure], Runs([]))[1] is False  # type: ignore[list-item]


def test_bytes_of_the_next_version() -> None:
    found = {
        "exactly": run("ours", 1, scenario="next", allowed=37 * MIB, sent=37 * MIB + (64 << 10)),
        "too many": run("ours", 1, scenario="next", allowed=37 * MIB, sent=37 * MIB + (65 << 10)),
    }
    assert figure_lines(FIGURES[5:6], Runs([found["exactly"]]))[1]
    assert not figure_lines(FIGURES[5:6], Runs([*found.values()]))[1]


def test_layers_that_may_be_sent() -> None:
    before = Contents(0, {"base": 200, "a": 3, "b": 4})
    assert Contents(0, {"base": 200, "a": 3, "c": 5}).to_send_after(before, 16) == 8  # small ones share blocks
    assert Contents(0, {"other": 210, "a": 3, "b": 4}).to_send_after(before, 16) == 210
    assert Contents(0, {"other": 210, "a": 3, "c": 5}).changed_since(before) == 215


def test_rounds_begin_with_another_one_each() -> None:
    assert rotated("abc", 0) == [(0, "a"), (1, "b"), (2, "c")]
    assert rotated("abc", 4) == [(0, "b"), (1, "c"), (2, "a")]


def test_lines_of_json_and_back() -> None:
    assert runs_in("".join(f"{line(it)}\n" for it in ROUNDS)) == ROUNDS


def test_the_table_has_a_row_of_medians_for_each() -> None:
    rows = table(Runs(ROUNDS)).splitlines()
    assert len(rows) == 2 + 3
    assert rows[3].startswith(f"| first | {FULL.a} | null | ours | 3 | 11.00 (6.00–20.00) | 1.20 | 0.73 |")


def test_a_plot_is_drawn_of_what_was_measured() -> None:
    (wall,) = [plot for plot in PLOTS if plot.file == "first-wall"]
    picture = xml.etree.ElementTree.fromstring(drawing(wall, Runs(ROUNDS)))
    bars = [float(it.get("width", 0)) for it in picture.iter("{http://www.w3.org/2000/svg}rect") if it.get("x")]
    assert [bar / bars[0] for bar in bars] == pytest.approx([1, 11 / 5, 9 / 5], rel=0.01)
    assert drawing(wall, Runs([])) == ""


def test_what_a_command_takes_includes_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = bytearray(300 << 20)  # by the one who measures, which counts for nothing
    child = "import time; kept = bytearray(150 << 20); time.sleep(0.2); open('file', 'wb').write(bytes(3 << 20))"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}]); print('done')"
    monkeypatch.chdir(tmp_path)
    cost, printed = measured([sys.executable, "-c", parent], os.environ, tmp_path / "log")
    assert (printed, len(held)) == ("done", 300 << 20)
    assert cost.wall > 0.2
    assert 150 << 20 < cost.memory < 250 << 20
    assert cost.disk == 0 or 3 << 20 <= cost.disk < 4 << 20  # a file system in memory charges nothing
    with pytest.raises(Failed, match="ended with 3"):
        measured(["sh", "-c", "echo why >&2; exit 3"], os.environ, tmp_path / "log")
    assert (tmp_path / "log").read_text().endswith("why\n")


@pytest.mark.parametrize("null", [True, False])
def test_an_endpoint_takes_blocks_and_counts_them(tmp_path: Path, null: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path / "site", null=null) as (variables, counter):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("HOME", str(tmp_path))  # where the SDK has a cache of blocks
        arvados.config.initialize()
        api = arvados.api("v1")
        for content in (b"a" * 2_000_000, b"b", b"b"):
            locator = api.keep.put(content, copies=1, num_retries=0)
            assert locator.startswith(f"{hashlib.md5(content).hexdigest()}+{len(content)}+A")
        # The site takes the locators as signed, so that a manifest text can be made of them.
        text = f". {locator} 0:1:file\n"
        assert api.collections().create(body={"manifest_text": text}).execute()["file_size_total"] == 1
        counts = counter.counts
        assert (counts.puts, counts.stored) == (3, 2_000_001)
        assert 2_000_002 < counts.sent < 2_000_500
        assert api.keep.get(locator, num_retries=0) == b"b"  # a small one, as the head of an archive
        assert (counter.counts - counts).read == (0 if null else 1)
    assert Counts(3, 2) - Counts(1, 2) == Counts(2, 0)
