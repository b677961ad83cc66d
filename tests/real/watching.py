# SPDX-License-Identifier: Apache-2.0
"""A watcher of folders: whether every file is whole at the moment at which it gets its name, and from then on."""

import ctypes
import os
import select
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from arv_docker.local.disk import hash_of
from arv_docker.model.image import Digest

#: Of inotify(7), which Python has no module for.
_MODIFY, _MOVED_TO, _CREATE, _OVERFLOW, _IS_FOLDER = 0x2, 0x80, 0x100, 0x4000, 0x40000000
_NONBLOCK, _CLOEXEC = 0o4000, 0o2000000
_EVENT = struct.Struct("iIII")


@dataclass
class Watched:
    """What was seen: how often each final name appeared, and what was wrong with a file when it did."""

    appeared: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


@contextmanager
def watching(expected: Mapping[str, Digest], *folders: Path) -> Iterator[Watched]:
    """Watches the folders while the block lasts. `expected` are the SHA-256 of all files that may appear, by their
    final names; names that begin with a dot or end in `.new` are those of files that are not whole yet."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(_NONBLOCK | _CLOEXEC)
    assert descriptor >= 0, os.strerror(ctypes.get_errno())
    places = {}
    for folder in folders:
        number = libc.inotify_add_watch(descriptor, os.fsencode(folder), _MODIFY | _MOVED_TO | _CREATE)
        assert number >= 0, os.strerror(ctypes.get_errno())
        places[number] = folder
    watched, over = Watched(), threading.Event()
    thread = threading.Thread(target=_watch, args=(descriptor, places, expected, watched, over))
    thread.start()
    try:
        yield watched
    finally:
        over.set()
        thread.join()
        os.close(descriptor)


def _watch(
    descriptor: int,
    places: Mapping[int, Path],
    expected: Mapping[str, Digest],
    watched: Watched,
    over: threading.Event,
) -> None:
    last = False
    while not last:
        last = over.is_set()  # one more look after the end
        if select.select([descriptor], [], [], 0 if last else 0.05)[0]:
            for number, mask, name in _events(os.read(descriptor, 1 << 20)):
                if mask & _OVERFLOW:
                    watched.wrong.append("the watcher was too slow to see everything")
                elif not (mask & _IS_FOLDER or name.startswith(".") or name.endswith(".new")):
                    _look(places[number] / name, mask, expected.get(name), watched)


def _look(path: Path, mask: int, expected: Digest | None, watched: Watched) -> None:
    if mask & _MODIFY:
        watched.wrong.append(f"{path.name} was written to")
        return
    watched.appeared.append(path.name)
    found = hash_of(path, lambda _: None)
    if found != expected:
        watched.wrong.append(f"{path.name} had other bytes: {found}")


def _events(raw: bytes) -> Iterator[tuple[int, int, str]]:
    while raw:
        number, mask, _, length = _EVENT.unpack_from(raw)
        name = raw[_EVENT.size : _EVENT.size + length].rstrip(b"\0")
        yield number, mask, os.fsdecode(name)
        raw = raw[_EVENT.size + length :]
