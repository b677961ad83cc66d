# SPDX-License-Identifier: Apache-2.0
"""Credentials for registries: providers, lifetimes, and the files of Docker and Podman.

A provider is a function that gives credentials when asked. A wallet asks it once, and
again before what it gave expires, or when the registry has refused that. Nothing here
writes: no login is left in anybody's configuration.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..errors import BadSettings, RegistryDenied, UsageError
from ..local.settings import command_environment, home_folder, user_folder
from ..model.image import parsed_time
from ..model.reference import DEFAULT_REGISTRY

log = logging.getLogger(__name__)

Kind = Literal["password", "identity", "bearer"]

#: Docker's name for its own registry in configurations.
HUB_KEY = "https://index.docker.io/v1/"
#: Credentials and tokens are asked for again this many seconds before they expire, short-lived ones later.
_MARGIN = 60.0
#: Longer than anything lives; numbers of any size come from servers and commands.
_LONGEST = 10**9
#: What was got less than so many seconds ago has not expired, whatever a registry's refusal may mean.
_YOUNG = 60.0
#: Seconds that a command or helper may take; some ask a person for a password.
_TIMEOUT = 60.0
_MAX_OUTPUT = 1 << 20
#: What is shown of standard error at most.
_MAX_SAID = 4000
#: Where Podman logs in a user who has no session of his own, such as root.
_SESSIONS = Path("/run/containers")
_HELPER = re.compile(r"[A-Za-z0-9_.-]+")
#: Warnings that were given.
_WARNED: set[str] = set()


@dataclass(frozen=True, slots=True)
class Credentials:
    """A name and a secret. ``kind`` says what the secret is: a password (or a token in the place of one), an
    identity token that is exchanged for others, or a bearer token for the registry itself.

    ``until`` is when to ask for others, in seconds of ``time.monotonic``; None for never.
    """

    username: str
    secret: str = field(repr=False)
    kind: Kind = "password"
    until: float | None = field(default=None, compare=False)

    @property
    def basic(self) -> str:
        """Name and secret as HTTP's Basic authorization writes them."""
        return base64.b64encode(f"{self.username}:{self.secret}".encode()).decode()

    @property
    def bearer(self) -> str:
        """The secret as a token; raises RegistryDenied, without the secret, for a text that no header can hold."""
        if not self.secret.isascii() or not self.secret.isprintable():
            raise RegistryDenied("the token for the registry has several lines, or characters that no token has.")
        return self.secret

    @property
    def is_fresh(self) -> bool:
        """Say if the credentials are good for a while yet."""
        return self.until is None or time.monotonic() < self.until


def good_until(lifetime: float) -> float:
    """The time to ask for new credentials, in seconds of ``time.monotonic``, if those had now live so many seconds."""
    seconds = min(lifetime, _LONGEST)
    return time.monotonic() + seconds - min(_MARGIN, seconds / 5)


#: Gives credentials; None where there are none, for a registry that lets everybody in.
Provider = Callable[[], Credentials | None]


class Wallet:
    """The credentials for one registry. May be used by several threads at once."""

    def __init__(self, provider: Provider | None = None) -> None:
        self._provider = provider
        self._credentials: Credentials | None = None
        self._asked_at: float | None = None
        self._lock = threading.Lock()

    def credentials(self) -> Credentials | None:
        """Credentials that have not expired, from the provider if necessary. Raises the provider's errors."""
        with self._lock:
            if self._asked_at is None or (self._credentials is not None and not self._credentials.is_fresh):
                self._ask()
            return self._credentials

    def renew(self, refused: Credentials | None) -> Credentials | None:
        """Return credentials other than the refused ones, or None."""
        with self._lock:
            if self._credentials is refused:
                self._ask()
            return None if self._credentials is None or self._credentials == refused else self._credentials

    def renew_if_old(self) -> Credentials | None:
        """Return credentials other than those that were held so far, if those are old enough to have expired; None if
        not, or if the provider has no others."""
        with self._lock:
            before, asked = self._credentials, self._asked_at
            if before is None or asked is None or time.monotonic() - asked < _YOUNG:
                return None
            self._ask()
            return None if self._credentials == before else self._credentials

    def _ask(self) -> None:
        self._credentials = self._provider() if self._provider else None
        self._asked_at = time.monotonic()


# -- providers ----------------------------------------------------------------------------


def static_provider(username: str, secret: str) -> Provider:
    """A provider of always the same credentials."""
    return lambda: Credentials(username, secret)


def environment_provider(name: str, username: str) -> Provider:
    """A provider of the secret in a variable, which is taken out of the environment at once: no child process gets it.
    An end of line is not part of it, as of what a command prints.

    Raises BadSettings if there is none.
    """
    secret = os.environ.pop(name, "").rstrip("\r\n")
    if not secret:
        raise BadSettings(f"the variable {name}, which should hold the secret for the registry, is not set.")
    return static_provider(username, secret)


def command_provider(words: Sequence[str], username: str) -> Provider:
    """A provider of what a command prints: the secret alone, or a JSON object with ``token`` and if it likes
    ``username`` and ``expires_in`` (seconds) or ``expires`` (a time). Asked again before it expires.

    The provider raises RegistryDenied if the command fails; what it printed is not shown.
    """

    def provider() -> Credentials:
        output = _output_of(words, b"", f"the command {words[0]!r}")
        if not output.startswith("{"):
            return Credentials(username, _checked_secret(output, words[0]))
        found = _parse_object(output, f"what {words[0]!r} printed")
        name = found.get("username")
        secret = _checked_secret(found.get("token"), words[0])
        return Credentials(name if isinstance(name, str) else username, secret, "password", _expiry_in(found))

    return provider


def helper_provider(program: str, server: str) -> Provider:
    """The provider of Docker's helper ``docker-credential-PROGRAM``, asked for ``server``; none if it knows none.

    The provider raises RegistryDenied if the helper is missing or fails otherwise.
    """
    if not _HELPER.fullmatch(program):
        raise BadSettings(f"{program!r} is not the name of a credential helper.")
    name = f"docker-credential-{program}"

    def provider() -> Credentials | None:
        output = _output_of(
            (name, "get"), server.encode(), f"the credential helper {name}", absent="credentials not found"
        )
        if not output:
            return None
        found = _parse_object(output, f"what {name} printed")
        username = found.get("Username")
        if not username and found.get("Secret") == "":
            return None  # as some say that they know none
        secret = _checked_secret(found.get("Secret"), name)
        if username == "<token>":
            return Credentials("", secret, "identity")
        return Credentials(username if isinstance(username, str) else "", secret)

    return provider


@dataclass(frozen=True, slots=True)
class Logins:
    """The places where Docker and Podman keep credentials. Without arguments: none.

    ``files`` are looked at in their order; one that is not there is empty. ``inline`` is the text of
    ``DOCKER_AUTH_CONFIG``, which goes before them.
    """

    files: tuple[Path, ...] = ()
    inline: str = field(default="", repr=False)

    @classmethod
    def of_user(cls, environment: Mapping[str, str]) -> Logins:
        """The places of an environment: ``$REGISTRY_AUTH_FILE`` alone if it is set, else ``$DOCKER_AUTH_CONFIG``,
        Podman's ``auth.json`` of this session and of the user, and Docker's ``config.json``."""
        if named := environment.get("REGISTRY_AUTH_FILE"):
            return cls((Path(named),))
        session = environment.get("XDG_RUNTIME_DIR", "")
        return cls(
            (
                Path(session) / "containers" / "auth.json"
                if session.startswith("/")
                else _SESSIONS / f"{os.getuid()}/auth.json",
                user_folder("XDG_CONFIG_HOME", ".config") / "containers" / "auth.json",
                Path(environment.get("DOCKER_CONFIG") or home_folder() / ".docker") / "config.json",
            ),
            environment.get("DOCKER_AUTH_CONFIG", ""),
        )

    @classmethod
    def of_file(cls, file: Path) -> Logins:
        """The logins of a file named by the user. Raises UsageError for a missing file."""
        if not file.is_file():
            raise UsageError(f"{file}, which should hold credentials, is not there.")
        return cls((file,))

    def documents(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each readable place, by name, with the JSON object in it; for an unreadable place a warning is logged."""
        if self.inline:
            with _warnings():
                yield "DOCKER_AUTH_CONFIG", _parse_object(self.inline, "DOCKER_AUTH_CONFIG")
        for file in self.files:
            with _warnings():
                yield str(file), config_in(file)


def configured_provider(host: str, repository: str, logins: Logins) -> Provider:
    """A provider of what the configuration of Podman and Docker says for a registry, read anew each time.

    The first of ``logins`` that knows the registry wins. A key may
    be more than a registry: ``HOST/NAMESPACE/REPOSITORY``, the longest that fits. A place that cannot be read, and a
    helper that is missing or fails, is a warning: the registry may let everybody in, and says so if it does not.
    """

    def provider() -> Credentials | None:
        for place, document in logins.documents():
            with _warnings():
                for key in _keys_of(host, repository, document):
                    if (found := _credentials_in(document, key, place)) is not None:
                        return found
        return None

    return provider


# -- Docker's and Podman's files --------------------------------------------------------------


def config_in(file: Path) -> dict[str, Any]:
    """The JSON object in a file, empty where there is no file; raises BadSettings where it cannot be read."""
    try:
        return _parse_object(file.read_text(), str(file))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(f"{file} cannot be read: {error}.") from None


@contextmanager
def _warnings() -> Iterator[None]:
    """Turn an error about one place into a warning, which is given once, however often the place is looked at."""
    try:
        yield
    except (BadSettings, RegistryDenied) as error:
        if error.message not in _WARNED:
            _WARNED.add(error.message)
            log.warning("%s Going on without credentials from there.", error.message)


def _keys_of(host: str, repository: str, document: Mapping[str, Any]) -> Iterator[str]:
    """The keys under which a configuration may have a registry, best first: of parts of it, of all, of a URL of it."""
    parts = [host, *filter(None, repository.split("/"))]
    for length in range(len(parts), 0, -1):
        yield "/".join(parts[:length])
    hosts = [host]
    if host == DEFAULT_REGISTRY:
        yield from (HUB_KEY, "index.docker.io")
        hosts += ["index.docker.io", "registry-1.docker.io"]
    auths, helpers = document.get("auths"), document.get("credHelpers")
    for keys in (auths, helpers):
        for key in keys if isinstance(keys, dict) else ():
            if key not in hosts and _host_in(key) in hosts:
                yield key


def _host_in(key: str) -> str:
    """The registry that a key of Docker's is about, which may be a URL of any depth."""
    return key.removeprefix("http://").removeprefix("https://").partition("/")[0]


def _credentials_in(document: Mapping[str, Any], key: str, place: str) -> Credentials | None:
    helpers, auths = document.get("credHelpers"), document.get("auths")
    if isinstance(helpers, dict) and isinstance(named := helpers.get(key), str) and named:
        return helper_provider(named, key)()
    entry = auths.get(key) if isinstance(auths, dict) else None
    if isinstance(entry, dict) and (found := _credentials_in_entry(entry, key, place)) is not None:
        return found
    store = document.get("credsStore")
    # A store is asked by the names under which Docker logs in, not by every folder of a repository.
    if isinstance(store, str) and store and ("/" not in key or key == HUB_KEY):
        return helper_provider(store, key)()
    return None


def _credentials_in_entry(entry: Mapping[str, Any], key: str, place: str) -> Credentials | None:
    texts: dict[str, str] = {name: value for name, value in entry.items() if isinstance(value, str) and value}
    if "registrytoken" in texts:
        return Credentials("", texts["registrytoken"], "bearer")
    username, secret = texts.get("username", ""), texts.get("password", "")
    if "auth" in texts:
        try:
            # Wrapped, or with an end of line, as `base64` writes it: Docker's decoder leaves those out.
            encoded = re.sub(r"[\r\n]", "", texts["auth"]).strip()
            username, colon, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (ValueError, UnicodeDecodeError):
            colon = ""
        if not colon:
            raise BadSettings(f"{place}: the entry for {key} is not base64 of NAME:PASSWORD.")
        secret = secret.strip("\0")
    if "identitytoken" in texts:
        return Credentials(username, texts["identitytoken"], "identity")
    return Credentials(username, secret) if username or secret else None


# -- what programs print ---------------------------------------------------------------------


def _output_of(words: Sequence[str], given: bytes, what: str, absent: str | None = None) -> str:
    """The standard output of a command, which gets ``given`` as input; empty if it fails and says ``absent``.

    Raises RegistryDenied for every other failure, with standard error; standard output may hold a secret.
    """
    try:
        done = subprocess.run(
            list(words), input=given, capture_output=True, timeout=_TIMEOUT, env=command_environment()
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it took longer than {_TIMEOUT:g} s"
        raise RegistryDenied(f"{what} gave no credentials: {reason}.") from None
    text = done.stdout[:_MAX_OUTPUT].decode(errors="replace").strip()
    if done.returncode == 0:
        return text
    if absent is not None and absent in text:
        return ""
    said = done.stderr[-_MAX_SAID:].decode(errors="replace")
    raise RegistryDenied(f"{what} gave no credentials: it ended with {done.returncode}.", detail=said)


def _parse_object(text: str, what: str) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise BadSettings(f"{what} is not a JSON object.")
    return found


def _checked_secret(text: object, where: str) -> str:
    if not isinstance(text, str) or not text or not text.isprintable():
        raise RegistryDenied(f"{where!r} gave no credentials: it printed no secret, or more than one line.")
    return text


def _expiry_in(document: Mapping[str, Any]) -> float | None:
    seconds = document.get("expires_in")
    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool):
        return good_until(seconds)
    moment = parsed_time(document.get("expires"))
    return None if moment is None else good_until(moment.timestamp() - time.time())
