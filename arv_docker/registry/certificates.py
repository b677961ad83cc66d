# SPDX-License-Identifier: Apache-2.0
"""The certificates by which a registry is trusted: the system's, and Docker's and Podman's for the host.

They are in a folder named after the registry, ``certs.d/HOST[:PORT]``: authorities as ``*.crt``, a
client's own certificate as ``*.cert`` with its ``*.key``. ``SSL_CERT_FILE`` counts as for every OpenSSL program.
Where a registry sends its clients (to a token server, to storage), its authorities are believed too, as Docker
and Podman do; a client's certificate is for the host of its folder alone.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import BadSettings
from ..local.settings import user_folder


def context_for(host: str, registry: str, folders: Sequence[Path]) -> ssl.SSLContext:
    """The rules for connections to a registry, or to a host that a registry refers to.

    ``folders`` are the ``certs.d`` to look into. Raises BadSettings for a file that is no certificate.
    """
    made = ssl.create_default_context()
    for place in dict.fromkeys((registry, host)):
        for file in _files_in(folders, place, "*.crt"):
            with _errors_about(file):
                made.load_verify_locations(cafile=file)
    for file in _files_in(folders, host, "*.cert"):
        with _errors_about(file):
            made.load_cert_chain(file, file.with_suffix(".key"))
    return made


def user_folders() -> tuple[Path, ...]:
    """The folders ``certs.d`` of this user and machine. Raises BadSettings where no home folder is known."""
    return (
        user_folder("XDG_CONFIG_HOME", ".config") / "containers" / "certs.d",
        Path("/etc/containers/certs.d"),
        Path("/etc/docker/certs.d"),
    )


def _files_in(folders: Sequence[Path], host: str, pattern: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((folder / host).glob(pattern))


@contextmanager
def _errors_about(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # ssl.SSLError is one
        raise BadSettings(f"{file} cannot be used as a certificate: {error}.") from None
