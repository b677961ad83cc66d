# SPDX-License-Identifier: Apache-2.0
"""The counts of how the code is written: each measure on a page of which the right count can be seen."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from bench import house
from bench.way import way_of

PAGE = '''"""What this page is about."""

class Held:
    """Holders of something."""

    it: int

    def __init__(self, own: int) -> None:
        self.found = own
        self.count = own

    def look_up(self) -> None:
        """Return the holder."""

    def told(self) -> None:
        """Whether they know it."""

    def feed(self) -> None:
        def _told(item: int, there: int) -> None: ...


def _open(name: str) -> None:
    """Whatever holds."""
'''


@pytest.fixture
def census(tmp_path: Path) -> house.Census:
    (tmp_path / "page.py").write_text(PAGE)
    for skipped in ("_vendor", "tests"):
        (tmp_path / skipped).mkdir()
        (tmp_path / skipped / "other.py").write_text("def told(it): ...\n")
    return house.census_of(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "places"),
    [
        ("functions", 1000 * 5 / 23, ["_open", "_told", "feed", "look_up", "told"]),
        ("one_word", 100 * 4 / 5, ["_open", "_told", "feed", "told"]),
        ("lone", 2, ["Held", "told"]),
        ("pronouns", 100 * 7 / 17, ["Holders of something.", "What this page is about.", "Whether they know it."]),
        ("unnamed_object", 2, ["What this page is about.", "Whether they know it."]),
        ("no_nouns", 4, ["found", "it", "own", "there"]),
        ("module", 23, []),
    ],
)
def test_a_measure(census: house.Census, key: str, value: float, places: list[str]) -> None:
    (measure,) = (measure for measure in house.MEASURES if measure.key == key)
    assert measure.value(census) == pytest.approx(value)
    if key != "pronouns":
        assert sorted(place.text for place in measure.places(census)) == places


@pytest.mark.parametrize("key", ["lone", "unnamed_object", "no_nouns"])
def test_this_package_has_none(key: str) -> None:
    (measure,) = (measure for measure in house.MEASURES if measure.key == key)
    assert [str(place) for place in measure.places(house.census_of(house.HERE / "arv_docker"))] == []


@pytest.mark.parametrize(
    ("name", "lone"),
    [
        ("told", True),
        ("_Named", True),
        ("spared", True),
        ("ahead", True),
        ("once", True),
        ("seed", False),
        ("feed", False),
        ("image", False),
        ("open", False),
        ("read", False),
        ("known_layers", False),
        ("NamedSource", False),
    ],
)
def test_a_lone_participle_or_adjective(name: str, lone: bool) -> None:
    assert house.is_lone_participle_or_adjective(name) is lone


def test_a_place_names_its_line(census: house.Census) -> None:
    assert str(census.classes[0]) == "page.py:3: Held"


def test_of_an_archive_only_pages_are_unpacked_and_only_below_the_folder(tmp_path: Path) -> None:
    wheel, source = tmp_path / "a.whl", tmp_path / "b.tar.gz"
    names = ("pkg/__init__.py", "pkg/data.bin", "../outside.py", "/absolute.py")
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in names:
            archive.writestr(name, "page")
    with tarfile.open(source, "w:gz") as archive:
        for name in names:
            member = tarfile.TarInfo(f"b-1/src/{name}" if name.startswith("pkg") else name)
            member.size = 4
            archive.addfile(member, io.BytesIO(b"page"))
    for archive_file in (wheel, source):
        house.unpack_pages(archive_file, tmp_path / "pages")
    written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.py"))
    assert written == ["pages/b-1/src/pkg/__init__.py", "pages/pkg/__init__.py"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "page.py").write_text(PAGE)
    assert house.main([str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[tmp_path.name]["lone"] == 2
    assert house.main([str(tmp_path), "--where", "lone"]) == 0
    assert capsys.readouterr().out == "page.py:3: Held\npage.py:15: told\n"
    assert house.main([str(tmp_path)]) == 0
    assert "| lone participles or adjectives | 2 |" in capsys.readouterr().out


def test_a_folder_without_pages_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert house.main([str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_the_way_of_an_ingest_goes_from_the_command_to_the_records(tmp_path: Path) -> None:
    names = way_of(["ingest", "app:1"], tmp_path)
    rooms = {name.partition("/")[0] for name in names["files"]}
    assert {"archive", "cli", "transports"} <= rooms
    assert len(names["deepest"]) > 10
    assert set(names["deepest"]) <= set(names["functions"])
