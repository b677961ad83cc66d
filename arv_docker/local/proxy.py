# SPDX-License-Identifier: Apache-2.0
"""Proxies in the environment of a command: hosts they are for, and connections through them.

``NO_PROXY`` is read as Go's programs read it (Docker, Podman, skopeo): names with all below them, ``.domain`` and
``*.domain`` for what is below alone, addresses, networks as CIDR, each with a port or without, IPv6 too, ``*`` for
everything (documentation of ``golang.org/x/net/http/httpproxy``). Hosts on this machine need no proxy.
"""

from __future__ import annotations

import ipaddress
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import BadSettings

if TYPE_CHECKING:
    from urllib3 import PoolManager

    Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_PORTS = {"http": "80", "https": "443"}
_HOST_AND_PORT = re.compile(r"(\[[^\[\]]*\]|[^\[\]:]*):([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies of an environment. ``exceptions`` are the entries of ``NO_PROXY``.

    ``addresses`` are the proxies by scheme, each with the name of its variable: they may hold passwords.
    """

    addresses: Mapping[str, tuple[str, str]] = field(default_factory=dict, repr=False)
    exceptions: tuple[str, ...] = ()

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> Proxies:
        """The proxies that ``http_proxy``, ``https_proxy`` and ``no_proxy`` set, in small letters or capitals."""
        addresses = {}
        for scheme in ("http", "https"):
            for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper()):
                if name == "HTTP_PROXY" and "REQUEST_METHOD" in environment:
                    continue  # a CGI program gets that one from a header of the request
                if environment.get(name):
                    addresses[scheme] = (name, environment[name])
                    break
        return cls(addresses, exceptions_in(environment))

    def proxy_for(self, scheme: str, netloc: str) -> str:
        """The URL of the proxy for ``host[:port]``, empty for none.

        Raises BadSettings, and shows nothing of the value, for an address that cannot be read.
        """
        variable, address = self.addresses.get(scheme, ("", ""))
        if not address or _is_this_machine(netloc) or is_excepted(self.exceptions, scheme, netloc):
            return ""
        return checked_proxy(address, variable)


def exceptions_in(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The entries of ``NO_PROXY``, or of ``no_proxy``."""
    text = environment.get("NO_PROXY") or environment.get("no_proxy") or ""
    return tuple(filter(None, (entry.strip().lower() for entry in text.split(","))))


def is_excepted(exceptions: tuple[str, ...], scheme: str, netloc: str) -> bool:
    """True if a host, as ``host[:port]``, is to be reached without a proxy by one of the entries of ``NO_PROXY``."""
    host, port = _host_and_port(netloc)
    address = _address_of(host)
    return any(_covers(entry, host, address, port or _PORTS.get(scheme, "")) for entry in exceptions)


def checked_proxy(address: str, variable: str) -> str:
    """The URL of a proxy, which may be written without ``http://``.

    Raises BadSettings, which names the variable and shows nothing of the value, for what is no such URL: it may hold
    a password, and a character in that which cuts the URL in two.
    """
    whole = address if "://" in address else f"http://{address}"
    try:
        parts = urllib.parse.urlsplit(whole)
        usable = bool(parts.hostname) and parts.scheme in ("http", "https") and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable or parts.path not in ("", "/") or parts.query or parts.fragment or "?" in whole or "#" in whole:
        raise BadSettings(
            f"{variable} is not the address of a proxy, which is http://HOST:PORT or http://NAME:PASSWORD@HOST:PORT. "
            "In a name or password # is written as %23, / as %2F, ? as %3F, [ as %5B, ] as %5D, @ as %40, % as %25."
        )
    return whole


def proxy_secrets(proxy: str) -> tuple[str, ...]:
    """The secrets of a proxy's URL, never to be shown: the password as written and as sent."""
    url = urllib.parse.urlsplit(proxy)
    if url.password is None:
        return ()
    header = _authorization_of(url)
    return (url.password, urllib.parse.unquote(url.password), header.partition(" ")[2])


def proxy_connections(proxy: str, many: dict[str, Any], *, variable: str = "HTTPS_PROXY") -> PoolManager:
    """Connections through a proxy, with the user and password that its URL may have.

    Raises BadSettings, which names the variable, for a URL that is none.
    """
    import urllib3

    url = urllib.parse.urlsplit(checked_proxy(proxy, variable))
    headers = {"proxy-authorization": _authorization_of(url)} if url.username is not None else None
    place = url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()
    return urllib3.ProxyManager(place, proxy_headers=headers, **many)


def _authorization_of(url: urllib.parse.SplitResult) -> str:
    import urllib3

    user = f"{urllib.parse.unquote(url.username or '')}:{urllib.parse.unquote(url.password or '')}"
    headers: dict[str, str] = urllib3.make_headers(proxy_basic_auth=user)
    return headers["proxy-authorization"]


def _covers(entry: str, host: str, address: Address | None, port: str) -> bool:
    """True if one entry of ``NO_PROXY`` is about a host."""
    if entry == "*":
        return True
    if "/" in entry:
        try:
            return address is not None and address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    name, wanted = _split_port(entry)
    name = name.strip("[]")
    if not name or wanted not in ("", port):
        return False
    if (excepted := _address_of(name)) is not None:
        return excepted == address
    below = name.removeprefix("*")
    return host.endswith(below if below.startswith(".") else f".{below}") or host == name


def _is_this_machine(netloc: str) -> bool:
    host, _ = _host_and_port(netloc)
    address = _address_of(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _host_and_port(netloc: str) -> tuple[str, str]:
    host, port = _split_port(netloc.rpartition("@")[2].lower())
    return host.strip("[]").rstrip("."), port


def _split_port(netloc: str) -> tuple[str, str]:
    match = _HOST_AND_PORT.fullmatch(netloc)
    return (match[1], match[2]) if match else (netloc, "")


def _address_of(host: str) -> Address | None:
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
