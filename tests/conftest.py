# SPDX-License-Identifier: Apache-2.0
"""What holds for every test: which ones run here, a home of its own, and no network.

The fixtures that start real engines are in `tests/real/conftest.py`.
"""

import ipaddress
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from .real.engines import require

#: How long an example takes says more of what else the machine does than of the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

#: Variables that would let the settings of whoever runs the tests into them.
FOREIGN_VARIABLES = ("ARVADOS_", "ARV_DOCKER_", "DOCKER_", "CONTAINER_", "CONTAINERS_", "REGISTRY_AUTH_FILE")
HOME_FOLDERS = {
    "HOME": ".",
    "XDG_CONFIG_HOME": ".config",
    "XDG_CACHE_HOME": ".cache",
    "XDG_DATA_HOME": ".local/share",
    "XDG_STATE_HOME": ".local/state",
    "XDG_RUNTIME_DIR": ".run",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run the tests that take minutes")


def pytest_configure(config: pytest.Config) -> None:
    # Debian keeps daemons there, and `su` alone does not put it into PATH.
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    # What a shell starts in the background has it ignored, and so would each program that a test interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture: `long` tests wait for `--long`, `engine` tests for their engines."""
    if item.get_closest_marker("long") and not item.config.getoption("--long"):
        pytest.skip("takes minutes; runs with --long")
    for marker in item.iter_markers("engine"):
        for name in marker.args:
            require(name)


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds the home of each test."""
    return tmp_path_factory.mktemp("homes")


@pytest.fixture(autouse=True)
def home(homes: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, which HOME and the XDG variables point into; `tmp_path` stays empty."""
    folder = Path(tempfile.mkdtemp(dir=homes))
    for name in [name for name in os.environ if name.startswith(FOREIGN_VARIABLES)]:
        monkeypatch.delenv(name)
    for name, place in HOME_FOLDERS.items():
        monkeypatch.setenv(name, str(folder / place))
    (folder / ".run").mkdir(mode=0o700)
    return folder


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Python sockets reach this machine alone; programs that tests start are not held back."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, _guarded(getattr(socket.socket, name)))
        yield


def _guarded(connect: Any) -> Any:
    def guarded(self: socket.socket, address: Any, /) -> Any:
        if self.family != socket.AF_UNIX and not _is_loopback(str(address[0])):
            # Not an Exception: nothing that handles a failed connection may hide it.
            pytest.fail(f"a test tried to connect to {address!r}; only loopback and unix sockets are allowed")
        return connect(self, address)

    return guarded


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"
