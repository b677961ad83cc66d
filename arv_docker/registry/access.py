# SPDX-License-Identifier: Apache-2.0
"""A user's access to registries: proxies, certificates and credentials.

It is read of the environment once, where a command begins, and passed on from there: nothing below asks again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from ..local.proxy import Proxies
from .certificates import user_folders
from .credentials import Logins


@dataclass(frozen=True, slots=True)
class Access:
    """A user's settings for registries, by the environment. Without arguments: nothing.

    ``certificates`` are folders of ``certs.d``, ``logins`` the places where Docker and Podman keep credentials.
    """

    proxies: Proxies = field(default_factory=Proxies)
    certificates: tuple[Path, ...] = ()
    logins: Logins = field(default_factory=Logins)

    @classmethod
    def of_user(cls, authfile: Path | None = None) -> Access:
        """The access of this process's user; ``authfile`` alone has the credentials if it is given.

        Raises BadSettings where no home folder is known.
        """
        return cls(
            Proxies.of_environment(os.environ),
            user_folders(),
            Logins.of_file(authfile) if authfile else Logins.of_user(os.environ),
        )
