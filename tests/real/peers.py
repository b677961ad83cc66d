# SPDX-License-Identifier: Apache-2.0
"""Clients of registries, ours among them, each behind the same three verbs: what they do is compared.

Each has a folder of its own, in which a home is made for each situation; nothing of the machine's configuration counts.
"""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import trees
from .engines import Docker, Podman
from .sites import command


@dataclass(frozen=True, slots=True)
class Run:
    """A command that was run: its exit code, None if it did not end in time, and all that it printed."""

    status: int | None
    said: str

    @property
    def verdict(self) -> str:
        """What came of it, in a word."""
        return {0: "works", None: "does not end"}.get(self.status, "fails")


@dataclass(frozen=True, slots=True)
class Home:
    """A user's home and environment. `mirrors` are other hosts by the registry that they mirror."""

    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    mirrors: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 60

    @property
    def environment(self) -> dict[str, str]:
        """The whole environment of a command: programs of the home's go first."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder),
            "XDG_RUNTIME_DIR": str(self.folder / "run"),
            "LANG": "C.UTF-8",
            **self.variables,
        }

    def write(self, name: str, content: str, mode: int = 0o644) -> None:
        """Write a file in it."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(mode)


class Peer:
    """A client. `name` is what its column is called."""

    #: If it reads a setting of mirrors, and takes a proxy from the command's own environment.
    has_mirrors = True
    has_proxy = True
    #: If the archive that it pushes is an OCI layout, so that it has an OCI manifest to push.
    pushes_oci = True

    def __init__(self, name: str, folder: Path, root: Path | None = None) -> None:
        """`root` is the tree in which it runs, None for this machine."""
        folder.mkdir(exist_ok=True)
        self.name = name
        self.folder = folder
        self._inside = trees.inside(root, folder) if root else []

    def pull(self, reference: str, home: Home) -> Run:
        """Have the image of a registry."""
        raise NotImplementedError

    def push(self, archive: Path, reference: str, home: Home) -> Run:
        """Push the one image of an archive, which lies in the peer's folder."""
        raise NotImplementedError

    def tags(self, repository: str, home: Home) -> Run | None:
        """List the tags of a repository; None where there is no command for that."""
        return None

    def clean(self) -> None:
        """Leave nothing behind."""

    def run(self, words: Sequence[str | Path], home: Home) -> Run:
        """Run a command to its end, or for as long as the home says."""
        # A tree has its own PATH.
        line = [*self._inside, "sh", "-c", f'PATH={shlex.quote(str(home.folder))}/bin:$PATH exec "$@"', "sh"]
        process = subprocess.Popen(
            [*line, *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self.environment(home),
            start_new_session=True,
        )
        with process:
            try:
                said = process.communicate(timeout=home.seconds)[0]
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                return Run(None, process.communicate()[0].decode(errors="replace"))
        return Run(process.returncode, said.decode(errors="replace"))

    def environment(self, home: Home) -> dict[str, str]:
        """The environment of a command."""
        return home.environment


class Skopeo(Peer):
    """skopeo, of this machine or of a tree."""

    def pull(self, reference: str, home: Home) -> Run:
        return self.run([*self._copy(home), f"docker://{reference}", f"oci:{home.folder}/pulled:app"], home)

    def push(self, archive: Path, reference: str, home: Home) -> Run:
        return self.run([*self._copy(home), f"oci-archive:{archive}", f"docker://{reference}"], home)

    def tags(self, repository: str, home: Home) -> Run | None:
        return self.run(["skopeo", "list-tags", "--tls-verify=false", f"docker://{repository}"], home)

    def environment(self, home: Home) -> dict[str, str]:
        return home.environment | _registries(home)

    def _copy(self, home: Home) -> list[str]:
        options = ("--src-tls-verify=false", "--dest-tls-verify=false")
        return ["skopeo", "--insecure-policy", "--tmpdir", str(home.folder), "copy", *options]


class PodmanPeer(Peer):
    """Podman, of this machine or of a tree, with a store of its own."""

    def __init__(self, podman: Podman, name: str, root: Path | None = None) -> None:
        super().__init__(name, podman.folder, root)
        self._podman = podman
        self._command = ["podman", "--runtime=runc"] if root else ["podman"]

    def pull(self, reference: str, home: Home) -> Run:
        return self.run([*self._command, "pull", "--tls-verify=false", reference], home)

    def push(self, archive: Path, reference: str, home: Home) -> Run:
        loaded = self.run([*self._command, "load", "--quiet", "--input", archive], home)
        image = loaded.said.strip().rpartition(" ")[2]
        return self.run([*self._command, "push", "--tls-verify=false", image, reference], home)

    def tags(self, repository: str, home: Home) -> Run | None:
        words = ["search", "--list-tags", "--limit", "1000000", "--tls-verify=false", repository]
        return self.run([*self._command, *words], home)

    def environment(self, home: Home) -> dict[str, str]:
        store = {name: value for name, value in self._podman.environment.items() if name.startswith("CONTAINERS_")}
        return home.environment | store | _registries(home)

    def clean(self) -> None:
        self._podman.empty()


class DockerPeer(Peer):
    """A Docker daemon with the client of its own version."""

    has_mirrors = False  # but of Docker Hub, in the daemon's settings
    has_proxy = False  # but the daemon's
    pushes_oci = False  # for it does not load every layout

    def __init__(self, docker: Docker, name: str, root: Path | None = None) -> None:
        super().__init__(name, docker.folder, root)
        self._docker = docker

    def pull(self, reference: str, home: Home) -> Run:
        return self.run(["docker", "pull", reference], home)

    def push(self, archive: Path, reference: str, home: Home) -> Run:
        loaded = self.run(["docker", "load", "--quiet", "--input", archive], home)
        image = re.findall(r"Loaded image(?: ID)?: (\S+)", loaded.said)[-1]
        self.run(["docker", "tag", image, reference], home)
        return self.run(["docker", "push", reference], home)

    def environment(self, home: Home) -> dict[str, str]:
        return home.environment | {"DOCKER_HOST": self._docker.host}

    def clean(self) -> None:
        self._docker.empty()


class Ours(Peer):
    """arv-docker of this checkout."""

    def pull(self, reference: str, home: Home) -> Run:
        words = ("copy", "--insecure", f"docker://{reference}", f"oci:{home.folder}/pulled:app")
        return self.run(command(*words), home)

    def push(self, archive: Path, reference: str, home: Home) -> Run:
        registry, _, name = reference.partition("/")
        return self.run(
            command("registry", "push", "--json", "--insecure", registry, f"oci-archive:{archive}", name), home
        )

    def tags(self, repository: str, home: Home) -> Run | None:
        registry, _, name = repository.partition("/")
        return self.run(command("registry", "tags", "--insecure", registry, name), home)

    def environment(self, home: Home) -> dict[str, str]:
        mirrors = " ".join(f"{registry}={mirror}" for registry, mirror in home.mirrors.items())
        return home.environment | {"ARV_DOCKER_REGISTRY_MIRRORS": mirrors, "PYTHONDONTWRITEBYTECODE": "1"}


def _registries(home: Home) -> dict[str, str]:
    """The file in which Podman and skopeo find mirrors; for them each is a registry without TLS."""
    tables = [
        f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n'
        f'[[registry.mirror]]\nlocation = "{mirror}"\ninsecure = true\n'
        for registry, mirror in home.mirrors.items()
    ]
    place = ".config/containers/registries.conf"  # where skopeo looks, which does not read Podman's variable
    home.write(place, "".join(tables))
    return {"CONTAINERS_REGISTRIES_CONF": f"{home.folder}/{place}"}


def version_in(text: str) -> str:
    """The first two numbers of a version."""
    match = re.search(r"\d+\.\d+", text)
    assert match is not None, text
    return match[0]


def config_with_store(name: str) -> str:
    """Docker's configuration, in which a credential store has all passwords."""
    return json.dumps({"auths": {}, "credsStore": name})
