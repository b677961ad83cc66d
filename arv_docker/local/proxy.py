# SPDX-License-Identifier: Apache-2.0
"""Connections through the proxy that the environment of a command names."""

from __future__ import annotations

import urllib.parse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from urllib3 import PoolManager


def proxy_connections(proxy: str, many: dict[str, Any]) -> PoolManager:
    """Connections through a proxy, with the user and password that its URL may have."""
    import urllib3

    url = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    headers = None
    if url.username is not None:
        user = f"{urllib.parse.unquote(url.username)}:{urllib.parse.unquote(url.password or '')}"
        headers = urllib3.make_headers(proxy_basic_auth=user)
    place = url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()
    return urllib3.ProxyManager(place, proxy_headers=headers, **many)
