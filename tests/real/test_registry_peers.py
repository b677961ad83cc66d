# SPDX-License-Identifier: Apache-2.0
"""What docker, podman, skopeo and arv-docker do in situations of the field, as docs/internals/registry-peers.md says.

`TEST_WRITE_PEERS=1` writes that page's table anew, with a column for each client that is here.
"""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import engines, field, trees
from .peers import DockerPeer, Ours, Peer, PodmanPeer, Skopeo, version_in
from .sites import TOP, show

PAGE = TOP / "docs/internals/registry-peers.md"
_BEGIN, _END = "<!-- table -->", "<!-- end of the table -->"
_OURS = "arv-docker"


def of_fixture(request: pytest.FixtureRequest, name: str) -> object | None:
    """The value of a fixture; None where it is skipped, since that engine is not here."""
    try:
        value: object = request.getfixturevalue(name)
        return value
    except pytest.skip.Exception:
        return None


@pytest.fixture
def clients(request: pytest.FixtureRequest, engine_scratch: Path) -> Iterator[list[Peer]]:
    """Every client that this machine and its trees have."""
    found: list[Peer] = [Ours(_OURS, engine_scratch / "ours")]
    roots = {"": None, "trixie": of_fixture(request, "trixie"), "sid": of_fixture(request, "sid")}
    daemons = {"": "second_docker", "trixie": "containerd_docker", "sid": "sid_docker"}
    podmans = {"": "podman", "trixie": "trixie_podman", "sid": "sid_podman"}
    for tree, root in roots.items():
        assert root is None or isinstance(root, Path)
        if tree and root is None:
            continue
        docker = of_fixture(request, daemons[tree])
        if isinstance(docker, engines.Docker) and (root is None or (root / "usr/bin/docker").exists()):
            version = version_in(docker.text("version", "--format", "{{.Server.Version}}"))
            found.append(DockerPeer(docker, f"docker {version}", root))
        podman = of_fixture(request, podmans[tree])
        if isinstance(podman, engines.Podman):
            found.append(PodmanPeer(podman, f"podman {version_in(podman.text('--version'))}", root))
        if root is None or (root / "usr/bin/skopeo").exists():
            folder = engine_scratch / f"skopeo-{tree}"
            folder.mkdir()
            inside = trees.inside(root, folder) if root else []
            text = engines.Program(*inside, "skopeo", variables={}).text("--version")
            found.append(Skopeo(f"skopeo {version_in(text)}", folder, root))
    yield found
    for peer in found:
        peer.clean()


def table_of(cells: dict[tuple[str, str], str], names: list[str], titles: list[str]) -> str:
    """The table as Markdown, a row a situation, the client's columns by name and version."""
    lines = [f"| situation | {' | '.join(names)} |", f"|{'---|' * (len(names) + 1)}"]
    lines += [f"| {title.replace('|', '/')} | {' | '.join(cells[title, it] for it in names)} |" for title in titles]
    return "\n".join(lines)


def cells_in(page: str) -> dict[tuple[str, str], str]:
    """The cells of the page's table, by situation and client."""
    lines = page.partition(_BEGIN)[2].partition(_END)[0].strip().splitlines()
    rows = [[cell.strip() for cell in line.strip().strip("|").split(" | ")] for line in lines if line.startswith("| ")]
    head, *rest = rows
    return {(row[0], name): cell for row in rest for name, cell in zip(head[1:], row[1:], strict=True)}


def in_order(name: str) -> tuple[bool, str, tuple[int, ...]]:
    """The order of columns: ours first, then by name and version."""
    program, _, version = name.partition(" ")
    return name != _OURS, program, tuple(map(int, version.split("."))) if version else ()


@pytest.mark.long
@pytest.mark.engine("docker", "podman", "skopeo")
def test_the_page_says_what_each_client_does(clients: list[Peer], capsys: pytest.CaptureFixture[str]) -> None:
    """All clients at the same time, each with servers of its own."""
    situations = field.situations()
    cells: dict[tuple[str, str], str] = {}

    def work(peer: Peer) -> None:
        for number, situation in enumerate(situations):
            try:
                cells[situation.title, peer.name] = field.run(situation, number, peer)
            except Exception as error:  # noqa: BLE001 - told in the table, which then is not the page's
                cells[situation.title, peer.name] = f"{type(error).__name__}: {error}"

    threads = [threading.Thread(target=work, args=(peer,)) for peer in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = sorted((peer.name for peer in clients), key=in_order)
    table = table_of(cells, names, [it.title for it in situations])
    page = PAGE.read_text()
    if os.environ.get("TEST_WRITE_PEERS"):
        before, _, rest = page.partition(_BEGIN)
        page = f"{before}{_BEGIN}\n{table}\n{_END}{rest.partition(_END)[2]}"
        PAGE.write_text(page)
    written = cells_in(page)
    assert {title for title, _ in written} == {it.title for it in situations}
    known = {name for _, name in written}
    assert _OURS in known
    show(capsys, *(f"{name} is not on the page" for name in names if name not in known))
    others = {key: (cell, written[key]) for key, cell in cells.items() if key[1] in known and written[key] != cell}
    assert others == {}, f"as (found, on the page); the table is now:\n{table}"
