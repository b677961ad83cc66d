# SPDX-License-Identifier: Apache-2.0
"""The table of layers: what one process learned the next one knows, and nothing that it holds can do harm."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from arv_docker.model.image import Digest
from arv_docker.store import layer_index
from arv_docker.store.layer_index import LayerTable

LOW, HIGH, PACKED = (Digest.of(text) for text in (b"low", b"high", b"low, compressed"))


def test_what_was_learned_is_known_by_both_names(tmp_path: Path) -> None:
    for _ in range(2):
        table = LayerTable(tmp_path)
        table.note(LOW, 5, PACKED)
        table.note(HIGH, 0)
        assert (table.diff_id(PACKED), table.diff_id(LOW)) == (LOW, LOW)
        assert [table.size(it) for it in (LOW, HIGH, PACKED)] == [5, 0, None]
    assert (tmp_path / "layers" / "table").read_text().split() == ["5", str(LOW), str(PACKED), "0", str(HIGH), "-"]


def test_of_two_that_disagree_the_last_one_counts(tmp_path: Path) -> None:
    LayerTable(tmp_path).note(HIGH, 4, PACKED)
    LayerTable(tmp_path).note(LOW, 5, PACKED)
    LayerTable(tmp_path).note(HIGH, 3)
    table = LayerTable(tmp_path)
    assert (table.diff_id(PACKED), table.size(LOW), table.size(HIGH)) == (LOW, 5, 3)


def test_a_line_that_was_cut_anywhere_harms_no_other(tmp_path: Path) -> None:
    LayerTable(tmp_path).note(HIGH, 12, PACKED)
    file = tmp_path / "layers" / "table"
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        LayerTable(tmp_path).note(LOW, 5)
        table = LayerTable(tmp_path)
        assert table.size(LOW) == 5
        assert (table.size(HIGH), table.diff_id(PACKED)) in ((None, PACKED), (12, HIGH))


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\n",
        b"x" * 100,
        b"-5 %s -\n",
        b"5 %s\n",
        b"5 %s x\n",
        b"5 sha512:%s -\n",
        "٥ %s -\n".encode(),
        b"5 %s - -\n",
    ],
)
def test_what_is_damaged_is_not_believed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "layers").mkdir()
    (tmp_path / "layers" / "table").write_bytes(content.replace(b"%s", str(LOW).encode()))
    assert LayerTable(tmp_path).size(LOW) is None
    LayerTable(tmp_path).note(LOW, 5)
    assert LayerTable(tmp_path).size(LOW) == 5


def test_a_table_that_grew_too_long_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_index, "_MOST_BYTES", 1000)
    for number in range(100):
        LayerTable(tmp_path).note(Digest.of(b"%d" % number), number)
        assert LayerTable(tmp_path).size(Digest.of(b"%d" % number)) == number
        assert (tmp_path / "layers" / "table").stat().st_size < 1200


def test_a_disk_that_takes_nothing_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "layers").write_text("in the way")
    for table in (LayerTable(tmp_path), LayerTable()):
        table.note(LOW, 5, PACKED)
        assert (table.size(LOW), table.diff_id(PACKED)) == (5, LOW)
    assert (tmp_path / "layers").read_text() == "in the way"


def test_several_processes_at_once_lose_nothing(tmp_path: Path) -> None:
    def learn(number: int) -> None:
        table = LayerTable(tmp_path)
        for it in range(50):
            table.note(Digest.of(b"%d %d" % (number, it)), it)

    processes = [multiprocessing.get_context("fork").Process(target=learn, args=(it,)) for it in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    table = LayerTable(tmp_path)
    assert [table.size(Digest.of(b"%d %d" % (one, it))) for one in range(4) for it in range(50)] == [*range(50)] * 4
