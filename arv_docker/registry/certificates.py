# SPDX-License-Identifier: Apache-2.0
"""Which certificates a registry is believed by: the system's, and those that Docker and Podman keep for it.

They are in a folder named after the registry, ``certs.d/HOST[:PORT]``: authorities as ``*.crt``, a
client's own certificate as ``*.cert`` with its ``*.key``. ``SSL_CERT_FILE`` counts as for every OpenSSL program.
Where a registry sends its clients (to a server of tokens, to storage), its authorities are believed too, as Docker
and Podman do; a client's certificate is for the host of its folder alone.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import BadSettings
from ..local.settings import user_folder


def context(host: str, registry: str) -> ssl.SSLContext:
    """The rules for connections to a host, which is a registry or one to which that sends us.

    Raises BadSettings for a file that is no certificate.
    """
    made = ssl.create_default_context()
    for place in dict.fromkeys((registry, host)):
        for file in _files(place, "*.crt"):
            with _named(file):
                made.load_verify_locations(cafile=file)
    for file in _files(host, "*.cert"):
        with _named(file):
            made.load_cert_chain(file, file.with_suffix(".key"))
    return made


def folder_of(host: str) -> Path:
    """Where a user puts what belongs to a registry."""
    return user_folder("XDG_CONFIG_HOME", ".config") / "containers" / "certs.d" / host


def _files(host: str, pattern: str) -> Iterator[Path]:
    for folder in (
        folder_of(host),
        *(Path(place) / host for place in ("/etc/containers/certs.d", "/etc/docker/certs.d")),
    ):
        yield from sorted(folder.glob(pattern))


@contextmanager
def _named(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # ssl.SSLError is one
        raise BadSettings(f"{file} cannot be used as a certificate: {error}.") from None
