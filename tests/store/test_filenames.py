# SPDX-License-Identifier: Apache-2.0
"""What staged files are called."""

from __future__ import annotations

import pytest

from arv_docker.errors import UsageError
from arv_docker.model.image import Digest
from arv_docker.store.filenames import SIF_SCHEMES, naming

ID = Digest.of(b"image")


@pytest.mark.conforms("W4")
@pytest.mark.parametrize(
    ("scheme", "text", "name"),
    [
        ("cwl", "docker://quay.io/a/b:1", "docker:__quay.io_a_b:1.img"),
        ("cwl", "busybox", "busybox.img"),
        ("nextflow", "docker://quay.io/a/b:1", "quay.io-a-b-1.img"),
        ("nextflow", "quay.io/a/b:1", "quay.io-a-b-1.img"),
        ("nextflow", "x.sif:1", "x-1.sif"),
        ("nextflow", "library://a/x.sif", "a-x.sif"),
        ("plain", "docker://busybox", "busybox%3Alatest.tar"),
        ("plain", "docker.io/library/busybox:latest", "busybox%3Alatest.tar"),
        ("plain", "localhost:5000/a/b:1", "localhost%3A5000%2Fa%2Fb%3A1.tar"),
        ("plain", str(ID), f"sha256%3A{ID.hex}.tar"),
        ("folder", "quay.io/a/b:1", f"quay.io%2Fa%2Fb_1_{ID.short_hex}.docker"),
        ("folder", "busybox", f"busybox_latest_{ID.short_hex}.docker"),
        ("{repository}-{tag}.tar", "quay.io/a/b:1", "a%2Fb-1.tar"),
        ("{registry}+{short_id}+{id}", "b", f"docker.io+{ID.short_hex}+{ID.hex}"),
    ],
)
def test_names(scheme: str, text: str, name: str) -> None:
    assert naming(scheme)(text, ID) == name


@pytest.mark.parametrize(
    ("scheme", "text", "name"),
    [
        ("plain", "quay.io/a/b:1", "quay.io%2Fa%2Fb%3A1.sif"),
        ("cwl", "quay.io/a/b:1", "quay.io_a_b:1.sif"),
        ("cwl", "docker://quay.io/a/b:1", "quay.io_a_b:1.sif"),
        ("cwl", "busybox", "busybox_latest.sif"),
        ("nextflow", "docker://quay.io/a/b:1", "quay.io-a-b-1.img"),
        ("folder", "quay.io/a/b:1", f"quay.io%2Fa%2Fb_1_{ID.short_hex}.sif"),
        ("{repository}-{tag}.simg", "quay.io/a/b:1", "a%2Fb-1.simg"),
    ],
)
def test_names_of_sif_files(scheme: str, text: str, name: str) -> None:
    assert naming(scheme, SIF_SCHEMES)(text, ID) == name


@pytest.mark.parametrize("scheme", ["", "sif", "{nothing}", "{", "{0}", "{tag.real}", "{tag:d}"])
def test_what_is_no_naming(scheme: str) -> None:
    with pytest.raises(UsageError, match="no naming"):
        naming(scheme)


@pytest.mark.parametrize(
    ("scheme", "text"),
    [
        ("../{tag}", "b:1"),
        (".{tag}", "b:1"),
        ("{tag}_meta.json", "b:1"),
        ("x" * 300 + "{tag}", "b:1"),
        ("folder", "b:1_2"),
        ("folder", str(ID)),
        ("{tag}", str(ID)),
    ],
)
def test_what_is_no_file(scheme: str, text: str) -> None:
    with pytest.raises(UsageError):
        naming(scheme)(text, ID)
