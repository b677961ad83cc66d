# SPDX-License-Identifier: Apache-2.0
"""`containers-storage:`: which store is meant. What is done with it is shown in `test_docker_daemon.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from arv_docker.errors import ArvDockerError, NoSuchImage
from arv_docker.transports import names

from ..engines.scripts import calls_of, scripted


@pytest.mark.parametrize(
    ("text", "options", "name"),
    [
        ("app:1", [], "localhost/app:1"),
        ("[/a/b]app:1", ["--root", "/a/b"], "localhost/app:1"),
        ("[vfs@/a]docker.io/app", ["--root", "/a", "--storage-driver", "vfs"], "docker.io/library/app:latest"),
        ("[/a+/b]app:1", ["--root", "/a", "--runroot", "/b"], "localhost/app:1"),
        ("[vfs@/a+/b]app:1", ["--root", "/a", "--runroot", "/b", "--storage-driver", "vfs"], "localhost/app:1"),
    ],
)
def test_the_store_in_front_of_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, options: list[str], name: str
) -> None:
    answer = (125, "[]", "Error: inspecting object: x: image not known")
    monkeypatch.setenv("PATH", scripted(tmp_path / "bin", "podman", {"": answer}))
    with pytest.raises(NoSuchImage), names.source(f"containers-storage:{text}").open():
        pass
    assert calls_of(tmp_path / "bin")[0] == [*options, "image", "inspect", name]


@pytest.mark.parametrize("text", ["[", "[]app", "[a]app", "[vfs@a]app", "[/a:opt=1]app", "[/a]", "", "[/a]@x"])
def test_what_is_no_store(text: str) -> None:
    for way in (names.source, names.destination):
        with pytest.raises(ArvDockerError):
            way(f"containers-storage:{text}")
