# SPDX-License-Identifier: Apache-2.0
"""`arv-docker inspect` of what is not in Keep: archives and layouts."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from arv_docker.archive import canonical
from arv_docker.arvados.catalog.link_classes import DIGEST, HASH, REPO_TAG
from arv_docker.cli import arv_docker
from arv_docker.model.image import Digest

from ..archives import Image, classic, containerd, files_of, flat, gzipped, hex_of, image, layout, several
from ..arvados.fake_api import FakeApi
from .conftest import Run

APP = image(files_of(b"low"), files_of(b"high"), os="linux", architecture="amd64", created="2026-01-02T03:04:05Z")
OTHER = image(files_of(b"other"), os="linux", architecture="s390x")


def inspect(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert arv_docker.main(["inspect", *arguments]) == code
    output = capsys.readouterr()
    return output.err if code else output.out


@pytest.mark.parametrize("form", [classic, flat])
def test_an_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str], form: object) -> None:
    assert callable(form)
    (tmp_path / "app.tar").write_bytes(form(APP, ["app:1"]))
    assert json.loads(inspect(capsys, "--json", f"docker-archive:{tmp_path}/app.tar")) == {
        "source": f"docker-archive:{tmp_path}/app.tar",
        "image_id": str(APP.parsed.digest),
        "platform": "linux/amd64",
        "created": "2026-01-02T03:04:05Z",
        "config": {},
        "history": [],
        "tags": ["app:1"],
        "digests": [],
        "layers": [{"diff_id": str(diff_id)} for diff_id in APP.parsed.diff_ids],
    }


def test_compressed_layers_and_digests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "app.tar").write_bytes(containerd(APP))
    document = json.loads(inspect(capsys, "--json", f"docker-archive:{tmp_path}/app.tar"))
    assert len(document["digests"]) == 2  # manifest and index
    assert document["layers"] == [
        {
            "diff_id": str(Digest.of(layer)),
            "compressed": f"sha256:{hex_of(gzipped(layer))}",
            "size": len(gzipped(layer)),
        }
        for layer in APP.layers
    ]


def test_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "app.tar").write_bytes(layout(APP))
    lines = inspect(capsys, f"oci-archive:{tmp_path}/app.tar").splitlines()
    assert f"image id:        {APP.parsed.digest}" in lines
    assert "layers:          2" in lines


def test_text_leaves_out_what_the_image_does_not_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    undated = image(files_of(b"undated"), os="linux", architecture="amd64")
    (tmp_path / "app.tar").write_bytes(layout(undated))
    assert json.loads(inspect(capsys, "--json", f"oci-archive:{tmp_path}/app.tar"))["created"] is None
    text = inspect(capsys, f"oci-archive:{tmp_path}/app.tar")
    assert "platform:        linux/amd64" in text.splitlines()
    assert "created" not in text
    assert "None" not in text


def test_one_of_several(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "two.tar").write_bytes(several((APP, ["app:1"]), (OTHER, ["other:1"])))
    place = f"docker-archive:{tmp_path}/two.tar"
    assert json.loads(inspect(capsys, "--json", f"{place}:other:1"))["image_id"] == str(OTHER.parsed.digest)
    refused = inspect(capsys, place, code=5)
    assert "app:1" in refused
    assert "other:1" in refused
    assert "no image for linux/arm64" in inspect(capsys, "--platform", "linux/arm64", f"{place}:app:1", code=1)


def test_what_is_piped_in(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for content in (classic(APP), gzip.compress(classic(APP))):
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content)))
        assert json.loads(inspect(capsys, "--json", "docker-archive:-"))["image_id"] == str(APP.parsed.digest)


def test_bad_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        inspect(capsys, "--platform", "linux", f"oci:{tmp_path}")
    assert "no OCI layout" in inspect(capsys, f"oci:{tmp_path}", code=5)


def test_the_links_of_a_stored_image(api: FakeApi, run: Run, archive: Path) -> None:
    """By name, by ID, and by the digest that a containerd store has for it."""
    assert run("ingest", "--from-archive", str(archive)).code == 0
    document = json.loads(run("inspect", "--json", "app:1").out)
    found = {(link["link_class"], link["name"]) for link in document["links"]}
    assert found == {
        (REPO_TAG, "app:1"),
        (HASH, document["image_id"]),
        (DIGEST, document["manifest_digest"]),
    }


def test_how_containers_start_is_shown(run: Run, tmp_path: Path) -> None:
    started = {"Entrypoint": ["/bin/app"], "Env": ["A=b"], "Labels": {"l": "1"}, "ExposedPorts": {"80/tcp": {}}}
    history = [{"created_by": "COPY app /bin/app"}, {"created_by": "ENV A=b", "empty_layer": True}]
    made = image(files_of(b"x"), os="linux", config=started, history=history)
    (tmp_path / "x.tar").write_bytes(classic(made))
    document = json.loads(run("inspect", "--json", f"docker-archive:{tmp_path}/x.tar").out)
    assert document["config"]["entrypoint"] == ["/bin/app"]
    assert document["config"]["exposed_ports"] == {"80/tcp": {}}
    assert [step["empty_layer"] for step in document["history"]] == [False, True]
    text = run("inspect", f"docker-archive:{tmp_path}/x.tar").out
    for words in ("entrypoint:      /bin/app", "labels:          l=1", "COPY app /bin/app", "ENV A=b  (no layer)"):
        assert words in text


@pytest.mark.parametrize("form", [classic, containerd, layout])
def test_config_and_manifest_byte_for_byte(
    tmp_path: Path, form: Callable[[Image], bytes], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Each hashes to the digest by which the image is known; without a manifest of its own it is the canonical one."""
    (tmp_path / "app.tar").write_bytes(form(APP))
    place = f"docker-archive:{tmp_path}/app.tar"
    assert arv_docker.main(["inspect", "--config", place]) == 0
    assert capfdbinary.readouterr().out == APP.config
    assert arv_docker.main(["inspect", "--raw", place]) == 0
    raw = capfdbinary.readouterr().out
    digest = str(Digest.of(raw))
    assert arv_docker.main(["inspect", "--json", place]) == 0
    digests = json.loads(capfdbinary.readouterr().out)["digests"]
    canonical_digest = str(canonical.layout(APP.parsed, APP.sizes).manifest_digest)
    assert digest == canonical_digest if form is classic else digest in digests
    assert json.loads(raw)["config"]["digest"] == str(APP.parsed.digest)


def test_bytes_of_an_image_in_keep_and_of_a_pipe(
    api: FakeApi, run: Run, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("ingest", "--from-archive", str(archive)).code == 0
    document = json.loads(run("inspect", "--json", "app:1").out)
    raw = run("inspect", "--raw", "app:1").out.encode()
    assert str(Digest.of(raw)) == document["manifest_digest"]
    assert str(Digest.of(run("inspect", "--config", "keep:app:1").out.encode())) == document["image_id"]
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(archive.read_bytes())))
    assert run("inspect", "--raw", "docker-archive:-").out.encode() == raw
    assert run("inspect", "--raw", "app:1", "app:1").code == 2


def test_layers_have_their_commands(run: Run, tmp_path: Path) -> None:
    history = [{"created_by": "COPY a"}, {"created_by": "ENV A=b", "empty_layer": True}, {"created_by": "COPY b"}]
    made = image(files_of(b"a"), files_of(b"b"), os="linux", history=history)
    (tmp_path / "x.tar").write_bytes(classic(made))
    document = json.loads(run("inspect", "--json", f"docker-archive:{tmp_path}/x.tar").out)
    assert [layer["created_by"] for layer in document["layers"]] == ["COPY a", "COPY b"]
    assert f"  {made.parsed.diff_ids[1]}  COPY b" in run("inspect", f"docker-archive:{tmp_path}/x.tar").out
    short = image(files_of(b"a"), files_of(b"b"), os="linux", history=history[:2])  # of which nobody knows
    (tmp_path / "y.tar").write_bytes(classic(short))
    assert "created_by" not in json.loads(run("inspect", "--json", f"docker-archive:{tmp_path}/y.tar").out)["layers"][0]


def test_it_fits_a_terminal(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = image(files_of(b"a"), os="linux", config={"Env": ["A=" + "b" * 200]}, history=[{"created_by": "c " * 99}])
    (tmp_path / "x.tar").write_bytes(classic(made))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    lines = run("inspect", "docker-archive:x.tar").out.splitlines()
    assert [line for line in lines if len(line) > 80] == ["    A=" + "b" * 200]  # a word, to be copied whole
    assert str(made.parsed.digest) in "".join(lines)
    assert max(map(len, run("inspect", "--wide", "docker-archive:x.tar").out.splitlines())) > 80
