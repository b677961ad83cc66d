# SPDX-License-Identifier: Apache-2.0
"""Verifying: every way in which a stored archive can differ from the image that it is named after."""

from __future__ import annotations

import hashlib
import signal
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arv_docker.archive import canonical
from arv_docker.archive.reader import ArchiveReader
from arv_docker.arvados.client import Cluster, CollectionRecord
from arv_docker.errors import ContentError, NotVerified
from arv_docker.images.verify import Report, verify
from arv_docker.local import progress
from arv_docker.model import manifest_text
from arv_docker.transports.keep import KeepDestination

from ..archives import Bytes, canonical_archive, classic, containerd, files_of, flat, hybrid, image
from ..arvados.fake_api import FakeApi, cluster

ONE, TWO = b"a" * 1024, b"b" * 1024
APP = image(ONE, TWO, os="linux")
LAYOUT = canonical.layout(APP.parsed, APP.sizes)


def verified(content: bytes, *, quick: bool = False) -> Report:
    """Of a collection that holds this content under APP's name."""
    api = FakeApi()
    pieces = [content[start : start + 3000] for start in range(0, len(content), 3000)]
    blocks = [f"{hashlib.md5(piece).hexdigest()}+{len(piece)}" for piece in pieces]
    api.keep.blocks |= dict(zip(blocks, pieces, strict=True))
    text = manifest_text.single_file(f"{APP.parsed.digest}.tar", len(content), blocks)
    record = CollectionRecord.of(api.add("collections", manifest_text=text))
    return verify(cluster(api), record, quick=quick, progress=progress.SilentProgress())


def test_the_canonical_archive() -> None:
    report = verified(canonical_archive(APP))
    assert (report.canonical, report.layers, report.bytes_read) == (True, 2, 2048)
    assert (report.image_id, report.config_digest) == (APP.parsed.digest, APP.parsed.digest)
    assert verified(canonical_archive(APP), quick=True).bytes_read == 0


def test_each_block_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of layers that begin blocks, one of them of two blocks, and of those that share one."""
    made = image(ONE, files_of(b"long" * (17 << 20)), TWO, files_of(b"short" * (4 << 20)))
    keep = cluster(api := FakeApi())
    stored = KeepDestination(keep, tmp_path).write(ArchiveReader(Bytes(classic(made))).image(), lambda _: None)
    record = CollectionRecord.of(api.add("collections", manifest_text=stored.manifest_text(made.parsed.digest)))
    fetched: list[str] = []
    get = keep.get_block

    def counted(locator: str) -> bytes:
        fetched.append(locator)
        return get(locator)

    monkeypatch.setattr(keep, "get_block", counted)
    assert verify(keep, record, quick=False, progress=progress.SilentProgress()).canonical
    assert sorted(fetched) == sorted(set(stored.locators))
    assert len(fetched) == 6


@pytest.mark.parametrize("form", [classic, hybrid, containerd, flat])
def test_any_layout(form: object) -> None:
    assert callable(form)
    assert verified(form(APP)).canonical is False


def test_swapped_headers_of_two_layers_of_one_size() -> None:
    """Each layer is where it belongs and hashes to its name, and an engine that goes by the headers swaps them."""
    content = canonical_archive(APP)
    one, two = (content[span.offset : span.offset + 512] for span in LAYOUT.spans)
    swapped = content.replace(one, b"\0" * 512).replace(two, one).replace(b"\0" * 512 + ONE, two + ONE)
    assert swapped != content
    assert len(swapped) == len(content)
    with pytest.raises(NotVerified, match="headers"):
        verified(swapped)


@given(st.data())
def test_no_changed_byte_of_the_canonical_archive_is_verified(data: st.DataObject) -> None:
    content = bytearray(canonical_archive(APP))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    with suppress(ContentError):
        assert not verified(bytes(content)).canonical


def test_who_gives_up_does_not_wait_for_a_silent_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C, while Keep says nothing."""
    end, ended, asked = threading.Event(), [], threading.Lock()

    def has_block(_: Cluster, locator: str) -> bool:
        if asked.acquire(blocking=False):
            end.wait(0.2)  # who asks is waiting by then
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        end.wait(20)
        ended.append(locator)
        return True

    monkeypatch.setattr(Cluster, "has_block", has_block)
    with pytest.raises(KeyboardInterrupt):
        verified(canonical_archive(APP), quick=True)
    assert ended == []
    end.set()


def test_a_manifest_text_of_another_pdh() -> None:
    record = CollectionRecord.of({"uuid": "u", "manifest_text": "", "portable_data_hash": "a" * 32 + "+3"})
    with pytest.raises(NotVerified, match="not that of"):
        verify(cluster(FakeApi()), record, quick=True, progress=progress.SilentProgress())
