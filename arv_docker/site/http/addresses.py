# SPDX-License-Identifier: Apache-2.0
"""The addresses at which a site is served now, in a file of its folder: two lines for each server, the newest first.

The first is ``host:port``, the second the server's process id.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

from ..folder import SiteFolder, hold_folder_lock
from ..store.files import write_private

#: Seconds that a server which ends waits for the folder's lock.
_LAST_SECONDS = 2.0


@contextlib.contextmanager
def announce(folder: SiteFolder, address: str) -> Iterator[None]:
    """Keep ``address`` in the folder while the site is served; addresses of other servers stay."""
    entry = (address, str(os.getpid()))
    with hold_folder_lock(folder):
        _write(folder, [entry, *_running(folder)])
    try:
        yield
    finally:
        # Where somebody holds the lock for long, the address stays; the next server takes away those of the dead.
        with contextlib.suppress(TimeoutError), hold_folder_lock(folder, _LAST_SECONDS):
            _write(folder, [other for other in _running(folder) if other != entry])


def addresses(folder: SiteFolder) -> list[str]:
    """The addresses that servers have announced, the newest first; a server that was killed may be among them."""
    return [address for address, _ in _entries(folder)]


def running_addresses(folder: SiteFolder) -> list[str]:
    """The addresses of servers whose processes live, the newest first."""
    return [address for address, _ in _running(folder)]


def _entries(folder: SiteFolder) -> list[tuple[str, str]]:
    try:
        lines = folder.address.read_text().splitlines()
    except FileNotFoundError:
        return []
    return list(zip(lines[::2], [*lines[1::2], ""], strict=False))


def _running(folder: SiteFolder) -> list[tuple[str, str]]:
    return [entry for entry in _entries(folder) if _is_alive(entry[1])]


def _is_alive(process: str) -> bool:
    if not process.isdecimal():
        return False
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _write(folder: SiteFolder, entries: Sequence[tuple[str, str]]) -> None:
    if entries:
        write_private(folder.address, "".join(f"{address}\n{process}\n" for address, process in entries).encode())
    else:
        folder.address.unlink(missing_ok=True)
