# SPDX-License-Identifier: Apache-2.0
"""The embedded single-machine Arvados: API and Keep on SQLite and a folder.

The rest of the package reaches it over HTTP like any cluster. The names here load the web
framework only when they are used, so that commands without a site start fast.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING

from ..errors import BadSettings
from ..local.settings import expand_home, user_folder

if TYPE_CHECKING:
    from .http import server as server_module

__all__ = ["LocalSite", "default_folder", "serve"]


def default_folder() -> Path:
    """The site's folder unless told otherwise: ARV_DOCKER_SITE, else ``arv-docker/site`` in XDG's data home."""
    named = os.environ.get("ARV_DOCKER_SITE")
    if named:
        return expand_home(Path(named))
    return user_folder("XDG_DATA_HOME", ".local/share") / "arv-docker" / "site"


class LocalSite:
    """A site served inside this process, for ``--local``: plain HTTP on a free loopback port.

    ```
    with LocalSite(folder) as site:
        api = arvados.api("v1", discoveryServiceUrl=site.discovery_url, token=site.token)
    ```

    Entering raises BadSettings where the packages of ``arv-docker[site]`` are missing or the
    folder is no site's, and DiskError where it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self.token = ""
        self._running: server_module.Running | None = None

    @property
    def discovery_url(self) -> str:
        """The address that ``arvados.api`` takes as ``discoveryServiceUrl``."""
        return f"{self.url}/discovery/v1/apis/{{api}}/{{apiVersion}}/rest"

    def __enter__(self) -> LocalSite:
        running = _server().local(self.folder)
        running.start()
        self._running = running
        self.url = f"http://127.0.0.1:{running.port}"
        self.token = running.token
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._running:
            self._running.stop()
            self._running = None


def serve(folder: Path, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve the site in ``folder`` over HTTPS on ``host`` and ``port`` (0: any free one) until SIGINT or SIGTERM.

    ``ready`` is called with ``host:port`` once clients may connect. Raises as ``LocalSite`` does.
    """
    _server().serve(folder, host, port, ready)


def _server() -> ModuleType:
    try:
        from .http import server
    except ModuleNotFoundError as error:
        raise BadSettings(
            "The embedded site needs packages that are missing. Install them with: pip install 'arv-docker[site]'",
            detail=str(error),
        ) from error
    return server
