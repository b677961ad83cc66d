# SPDX-License-Identifier: Apache-2.0
"""`arv-docker images` and `arv-keepdocker images`: the table and its JSON."""

from __future__ import annotations

import io
import json
import locale
import sys

import pytest

from arv_docker.arvados.catalog.link_classes import HASH, REPO_TAG

from ..arvados.fake_api import ME, PROJECT, FakeApi, http_error
from .conftest import Run

ID = "sha256:" + "0123456789ab" + "c" * 52


@pytest.fixture
def stocked(api: FakeApi) -> FakeApi:
    made = api.image(b"one", ID, uuid="zzzzz-4zz18-000000000000001")
    when = {"properties": {"image_timestamp": "2024-01-02T03:04:05Z"}}
    api.link(made, HASH, ID, **when)
    api.link(made, REPO_TAG, "host.example.com:5000/tools/app:1", **when)
    other = api.image(b"two", uuid="zzzzz-4zz18-000000000000002")
    api.link(other, REPO_TAG, "app:latest", properties={"image_timestamp": "2024-01-01T00:00:00Z"})
    return api


@pytest.fixture(autouse=True)
def plain_dates() -> None:
    locale.setlocale(locale.LC_TIME, "C")


TABLE = """\
REPOSITORY                        TAG     IMAGE ID      COLLECTION                   CREATED
host.example.com:5000/tools/app   1       0123456789ab  zzzzz-4zz18-000000000000001  Tue Jan  2 03:04:05 2024
app                               latest  3fc4ccfe7458  zzzzz-4zz18-000000000000002  Mon Jan  1 00:00:00 2024
"""


@pytest.mark.conforms("K1")
@pytest.mark.usefixtures("stocked")
@pytest.mark.parametrize("arguments", [["arv-keepdocker"], ["arv-keepdocker", "images"], ["images"]])
def test_the_table(run: Run, arguments: list[str]) -> None:
    """Upstream's five columns; `arv-docker images` has more behind them."""
    outcome = run(*arguments)
    assert outcome.code == 0
    for line, expected in zip(outcome.out.splitlines(), TABLE.splitlines(), strict=True):
        cells = line.split()
        assert cells[: len(expected.split())] == expected.split()
        assert cells == expected.split() or arguments == ["images"]
    starts = {tuple(line.index(cell) for cell in line.split()[:4]) for line in outcome.out.splitlines()[1:]}
    assert len(starts) == 1, "the columns are not below each other"
    assert not any(line.endswith(" ") for line in outcome.out.splitlines())


@pytest.mark.usefixtures("api")
def test_an_empty_table_is_its_head(run: Run) -> None:
    outcome = run("images")
    assert (outcome.code, outcome.out.split()[0], len(outcome.out.splitlines())) == (0, "REPOSITORY", 1)


def test_a_project_that_is_not_there(stocked: FakeApi, run: Run) -> None:
    assert run("images", "--project-uuid", PROJECT).code == 0
    stocked.faults["groups.get"] = [http_error(404)]
    outcome = run("images", "--project-uuid", PROJECT)
    assert (outcome.code, outcome.out) == (4, "")
    assert f"project {PROJECT}: the server knows no such thing" in outcome.err


@pytest.mark.conforms("S22")
@pytest.mark.usefixtures("stocked")
def test_json(run: Run) -> None:
    rows = json.loads(run("images", "--json").out)
    assert len(rows) == 2
    expected = {
        "repository": "host.example.com:5000/tools/app",
        "tag": "1",
        "image_id": ID,
        "uuid": "zzzzz-4zz18-000000000000001",
        "timestamp": "2024-01-02T03:04:05+00:00",
        "linked_by": ME,
    }
    assert expected.items() <= rows[0].items()
    assert {"pdh", "link_uuid"} <= set(rows[0])


@pytest.mark.conforms("K16")
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_a_name_that_the_locale_cannot_write(
    stocked: FakeApi, run: Run, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    """Anybody may write such a link; the listing of everybody else goes on."""
    for name in ("é:1", "\x1b[31m:2", "\u2603:3"):
        stocked.link({"uuid": "zzzzz-4zz18-000000000000001"}, REPO_TAG, name)

    def printed(*arguments: str) -> str:
        written = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding))
        assert run(*arguments).code == 0
        return written.getvalue().decode(encoding)

    assert len(printed("arv-keepdocker").splitlines()) == len(printed("images").splitlines()) == 6
    names = [row["repository"] for row in json.loads(printed("images", "--json"))]
    assert {"é", "\x1b[31m", "\u2603"} < set(names)


@pytest.mark.usefixtures("stocked")
@pytest.mark.parametrize(
    ("name", "count"), [("app", 1), ("host.example.com:5000/tools/app:1", 1), ("none", 0), (ID, 1)]
)
def test_a_name(run: Run, name: str, count: int) -> None:
    assert len(json.loads(run("images", name, "--json").out)) == count


@pytest.mark.conforms("K1")
@pytest.mark.usefixtures("stocked")
def test_an_image_that_is_called_images(run: Run) -> None:
    """Only the word alone lists."""
    for arguments in (["images:latest"], ["images", "latest"]):
        outcome = run("arv-keepdocker", "--from-archive", "/nowhere.tar", *arguments)
        assert outcome.code == 1


@pytest.mark.usefixtures("api", "engine")
def test_a_terminal_gets_lines_that_fit(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    long = "registry.example/a/very/long/path/of/a/repository:with-a-long-tag-too"
    assert run("ingest", "app:1", "--as", long).code == 0
    rows = run("images", "--wide").out.splitlines()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    narrow = run("images").out.splitlines()
    assert len(narrow) == len(rows) == 2
    assert max(map(len, narrow)) <= 80 < len(rows[1])
    assert "…" in narrow[1]
    assert run("images", "--wide").out.splitlines() == rows


@pytest.mark.usefixtures("stocked")
@pytest.mark.parametrize(
    ("name", "warning"),
    [
        ("app", ""),
        ("app:latest", ""),
        ("host.example.com:5000/tools/app:1", ""),
        ("host.example.com:5000/tools/app", "by host.example.com:5000/tools/app the cluster itself finds nothing"),
        (ID, "by an ID the cluster itself finds another image, or none"),
        (ID[:20], "by an ID the cluster itself finds another image, or none"),
        (ID[7:19], "by an ID the cluster itself finds another image, or none"),
    ],
)
def test_what_a_container_must_name(run: Run, name: str, warning: str) -> None:
    outcome = run("images", name)
    assert outcome.code == 0
    assert len(outcome.out.splitlines()) == 2
    assert (warning in outcome.err) if warning else ("container" not in outcome.err)
    assert ("a container must name one of these REPOSITORY:TAG" in outcome.err) == bool(warning)


def test_of_what_is_not_there_nothing_is_warned(run: Run, stocked: FakeApi) -> None:
    assert "container" not in run("images", "sha256:" + "9" * 64).err
