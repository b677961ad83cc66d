# SPDX-License-Identifier: Apache-2.0
"""Real engines, each with a root of its own, and the images that they hold.

Says what this machine has, starts it apart from whatever else runs here, and ends it again. No fixtures: those are in
`conftest.py` beside this.
"""

import contextlib
import fcntl
import hashlib
import io
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NoReturn

import pytest

#: The programs that each engine consists of. A name outside this table is a mistake in the test.
PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "docker": ("dockerd", "docker"),
    "podman": ("podman",),
    "skopeo": ("skopeo",),
    "umoci": ("umoci",),
    "busybox": ("busybox",),
    "registry": ("docker-registry",),
    "nginx": ("nginx",),
    "tinyproxy": ("tinyproxy", "unshare"),
    "debootstrap": ("debootstrap", "unshare"),
    "git": ("git",),
    "mount": ("mount", "umount"),
    "bash": ("bash",),
    "zsh": ("zsh",),
    "fish": ("fish",),
}
#: Engines that mount file systems.
NEED_ROOT = frozenset({"docker", "podman", "debootstrap", "mount", "tinyproxy"})
CAP_SYS_ADMIN = 1 << 21

#: Variables that would send a client to another engine, or give it somebody's settings.
CLIENT_VARIABLES = ("DOCKER_", "CONTAINER_", "CONTAINERS_", "REGISTRY_AUTH_FILE")


# What this machine has


@cache
def missing(engine: str) -> str | None:
    """Why the named engine cannot run here; None when it can. Raises KeyError for a name that is no engine."""
    for program in PROGRAMS[engine]:
        if shutil.which(program) is None:
            return f"{engine}: no {program} in PATH"
    if engine in NEED_ROOT and not _may_mount():
        return f"{engine}: needs root with the right to mount"
    if engine == "busybox" and subprocess.run(["ldd", _which("busybox")], capture_output=True).returncode == 0:
        return "busybox: not linked statically, cannot run alone in an image"
    return None


def require(*engines: str) -> None:
    """Skip this test, or with CI set fail it, where one of the engines cannot run."""
    for engine in engines:
        reason = missing(engine)
        if reason is not None:
            unavailable(reason)


def unavailable(reason: str) -> NoReturn:
    """The one rule for what a test needs and does not find: skipped with the reason, failed when CI is set."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason} (CI is set, so this is no skip)", pytrace=False)
    pytest.skip(reason)


def _may_mount() -> bool:
    try:
        status = Path("/proc/self/status").read_text()
    except FileNotFoundError:
        return False
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return os.geteuid() == 0 and bool(int(effective, 16) & CAP_SYS_ADMIN)


def _which(program: str) -> str:
    found = shutil.which(program)
    assert found is not None
    return found


# Scratch folders


SCRATCH_PREFIX = "arvt-"


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder for the roots of engines, with a name short enough for unix sockets (108 bytes).

    At its end the engines in it are ended and it is removed. Its lock is held as long as this process lives: a folder
    whose lock is free belongs to a run that was killed, and goes first.
    """
    clear_leftovers()
    # Not mkdtemp: the name is a namespace of containerd too, where an underscore has rules.
    folder = _short_parent() / f"{SCRATCH_PREFIX}{secrets.token_hex(4)}"
    folder.mkdir(mode=0o700)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            end_processes(folder)
            remove_tree(folder)


def clear_leftovers() -> None:
    """End the engines of killed runs and remove their folders."""
    for path in _short_parent().glob(f"{SCRATCH_PREFIX}*/lock"):
        with contextlib.suppress(PermissionError, FileNotFoundError, BlockingIOError), path.open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.stat().st_uid == os.geteuid():
                end_processes(path.parent)
                remove_tree(path.parent)


def _short_parent() -> Path:
    usual = tempfile.gettempdir()
    return Path(usual if len(usual) <= 40 else "/tmp")


def end_processes(folder: Path) -> None:
    """End the dockerd, containerd and shims whose command lines name the folder, and the containers below them."""
    doomed = _family(_daemons_of(folder))
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + 2  # their folder goes next, so nothing is worth a longer wait
        while time.monotonic() < deadline:
            if not any(_alive(pid) for pid in doomed):
                return
            time.sleep(0.05)


def remove_tree(folder: Path) -> None:
    """Unmount all below the folder, deepest first, and remove it."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in sorted((point for point in points if point.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)


def _daemons_of(folder: Path) -> set[int]:
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            program = os.path.basename(words[0])  # noqa: PTH119 - bytes
            if program.startswith((b"dockerd", b"containerd")) and any(bytes(folder) + b"/" in word for word in words):
                found.add(int(entry.name))
    return found


def _family(pids: set[int]) -> set[int]:
    """The processes and all their descendants."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # After the name, which is in parentheses and may hold anything: state, parent.
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    family = set(pids)
    while grown := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= grown
    return family


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# Programs


class Program:
    """A command line that is always called the same way."""

    def __init__(self, *command: str, variables: Mapping[str, str]) -> None:
        self._command = command
        self._variables = dict(variables)

    @property
    def environment(self) -> dict[str, str]:
        """The whole environment for a child process that is to reach the same engine."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(CLIENT_VARIABLES)}
        return own | self._variables

    def run(
        self, *args: str | Path, stdin: bytes | Path | None = None, check: bool = True, timeout: float = 300
    ) -> subprocess.CompletedProcess[bytes]:
        """Run it to its end; `stdin` is content, or the file that has it. With `check`, failure is AssertionError."""
        command = [*self._command, *map(str, args)]
        with stdin.open("rb") if isinstance(stdin, Path) else contextlib.nullcontext() as file:
            process = subprocess.Popen(
                command,
                stdin=file or subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self.environment,
            )
        with process:
            try:
                out, err = process.communicate(stdin if isinstance(stdin, bytes) else None, timeout)
            except BaseException:
                process.kill()
                raise
        done = subprocess.CompletedProcess(command, process.returncode, out, err)
        if check and done.returncode != 0:
            said = done.stderr.decode(errors="replace")
            raise AssertionError(f"{' '.join(command)} exited {done.returncode}: {said}")
        return done

    def text(self, *args: str | Path, stdin: bytes | Path | None = None) -> str:
        """What it prints, without white space around it."""
        return self.run(*args, stdin=stdin).stdout.decode().strip()


class Engine(Program):
    """A program that holds images."""

    def image_ids(self) -> set[str]:
        """The IDs of all images as `sha256:…`, tagged or not."""
        return set(self.text("image", "ls", "--all", "--quiet", "--no-trunc").split())


class Docker(Engine):
    """A private daemon, reached at `host`; called through whichever client PATH has."""

    CONFIGURATION = "{}"

    def __init__(self, folder: Path) -> None:
        """Start it, with the images of an earlier one in that folder, and wait until it answers.

        Raises EngineFailed with the end of its log when it does not.
        """
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.host = f"unix://{folder}/docker.sock"
        (folder / "client").mkdir(exist_ok=True)
        super().__init__(
            "docker",
            variables={"DOCKER_HOST": self.host, "DOCKER_CONFIG": f"{folder}/client", "DOCKER_BUILDKIT": "0"},
        )
        (folder / "daemon.json").write_text(self.CONFIGURATION)  # else the one of the machine counts
        self._log = folder / "log"
        self._process = self._started()
        self._wait()

    def build(self, dockerfile: str, files: Mapping[str, bytes], reference: str | None = None) -> str:
        """Build an image from the files, without network; gives its ID."""
        context = tar_of({"Dockerfile": (dockerfile.encode(), 0o644)} | {name: (files[name], 0o644) for name in files})
        tag = ["--tag", reference] if reference else []
        return self.text("build", "--quiet", "--network", "none", *tag, "-", stdin=context)

    def empty(self) -> None:
        """Remove all containers and all images."""
        containers = self.text("ps", "--all", "--quiet").split()
        if containers:
            self.run("rm", "--force", "--volumes", *containers)
        self.run("image", "prune", "--all", "--force")

    def pause(self) -> None:
        """Stop the daemon where it is: it takes connections, and says nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let a daemon that was paused go on."""
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End the daemon with all that it started; the folder stays, for the owner of the scratch."""
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            # dockerd alone would wait ten seconds for a container that ignores SIGTERM, as its first process does.
            containers = self.text("ps", "--quiet").split()
            if containers:
                self.run("kill", *containers, timeout=30)
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        end_processes(self.folder)

    def _started(self) -> subprocess.Popen[bytes]:
        folder = self.folder
        # It dies with the tests, however they end; where setpriv is missing, `clear_leftovers` of the next run does it.
        bound = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
        command = [
            *bound,
            *self._inside(),
            *("dockerd", "--config-file", f"{folder}/daemon.json", "--data-root", f"{folder}/data"),
            *("--exec-root", f"{folder}/exec", "--pidfile", f"{folder}/pid", "--host", self.host),
            # Containers run with `--network none` or `host`; the machine's own network stays as it is.
            *("--bridge=none", "--iptables=false", "--ip6tables=false"),
            # Where the machine has a containerd of its own, dockerd uses that one: then at least apart from others.
            *(
                "--containerd-namespace",
                folder.parent.name,
                "--containerd-plugins-namespace",
                f"{folder.parent.name}-p",
            ),
        ]
        with self._log.open("wb") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def _inside(self) -> list[str]:
        """What is written in front of the daemon's command, to run it elsewhere than here."""
        return []

    def _wait(self, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not self._answers():
            ended = self._process.poll()
            if ended is not None or time.monotonic() > deadline:
                self.close()
                state = f"ended with {ended}" if ended is not None else f"silent for {seconds:g} s"
                tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
                raise EngineFailed(f"docker: the private daemon did not start ({state}); end of its log:\n{tail}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            try:
                connection.connect(self.host.removeprefix("unix://"))
                connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
                return connection.recv(64).split(b" ")[1:2] == [b"200"]
            except OSError:
                return False


class EngineFailed(Exception):
    """An engine is installed and did not start."""


class Podman(Engine):
    """Podman with a store of its own; not a daemon, so nothing runs between two calls."""

    def __init__(self, folder: Path, driver: str = "vfs") -> None:
        """``driver`` stores its images; ``vfs`` runs on every file system, and copies the files of all layers below."""
        folder.mkdir()
        self.folder = folder
        root = folder / "root"
        # By files and not by options, so that a child process that just calls `podman` has the same store.
        (folder / "storage.conf").write_text(
            f'[storage]\ndriver = "{driver}"\ngraphroot = "{root}"\nrunroot = "{folder}/run"\n'
        )
        (folder / "containers.conf").write_text(
            f'[engine]\ntmp_dir = "{folder}/tmp"\nstatic_dir = "{root}/libpod"\nvolume_path = "{root}/volumes"\n'
            'cgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
            # Its own defaults are above what root may set on some machines.
            '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
        )
        (folder / "auth.json").write_text("{}")
        super().__init__(
            "podman",
            variables={
                "CONTAINERS_STORAGE_CONF": f"{folder}/storage.conf",
                "CONTAINERS_CONF": f"{folder}/containers.conf",
                "REGISTRY_AUTH_FILE": f"{folder}/auth.json",
            },
        )

    def empty(self) -> None:
        """Remove all containers and all images."""
        self.run("rm", "--all", "--force")
        self.run("rmi", "--all", "--force")


def skopeo(folder: Path) -> Program:
    """skopeo that trusts every image and keeps its temporary files in the folder."""
    folder.mkdir()
    (folder / "auth.json").write_text("{}")
    return Program(
        *("skopeo", "--insecure-policy", "--tmpdir", str(folder)),
        variables={"REGISTRY_AUTH_FILE": f"{folder}/auth.json"},
    )


# Images


@dataclass(frozen=True, slots=True)
class Image:
    """An image that a daemon holds."""

    reference: str
    #: `sha256:…` of its config.
    id: str
    #: `sha256:…` of each uncompressed layer, the lowest first. The same in every run, as long as busybox is.
    diff_ids: tuple[str, ...]
    #: What a container of it prints.
    greeting: str
    #: The ID of the same image without its top layer.
    below: str


#: Big enough for a block and a half in Keep, and to make a transfer take noticeable time.
BASE_DATA = 104 << 20


def build_small(docker: Docker, reference: str = "arvtest/small:1") -> Image:
    """busybox, a few files, a script: three layers, about 2 MB."""
    layers = {
        "busybox.tar": busybox_layer(),
        "etc.tar": tar_of({"etc/passwd": (b"root:x:0:0:root:/:/bin/sh\n", 0o644), "etc/motd": (b"small\n", 0o644)}),
    }
    return _with_top(docker, reference, docker.build(_dockerfile(layers), layers))


def build_base(docker: Docker, reference: str = "arvtest/base:1") -> Image:
    """busybox, 104 MiB that do not compress, a script: three layers."""
    layers = {
        "busybox.tar": busybox_layer(),
        "data.tar": tar_of({"data/noise": (noise(BASE_DATA), 0o644)}),
    }
    return _with_top(docker, reference, docker.build(_dockerfile(layers), layers))


def build_noisy(docker: Docker, layers: int, size: int, reference: str) -> Image:
    """busybox, so many layers of so many bytes each that do not compress, a script."""
    below = docker.build(_dockerfile(["busybox.tar"]), {"busybox.tar": busybox_layer()})
    for number in range(layers):
        content = tar_of({f"data/{number}": (random.Random(number).randbytes(size), 0o644)})
        below = docker.build(f"FROM {below}\nADD data.tar /\n", {"data.tar": content})
    return _with_top(docker, reference, below)


def build_variant(docker: Docker, image: Image, reference: str) -> Image:
    """The image with another top layer and the same layers below."""
    return _with_top(docker, reference, image.below)


def noise(size: int) -> bytes:
    """Bytes without pattern, the same in every run."""
    return hashlib.shake_128(b"arvtest").digest(size)


def tar_of(files: Mapping[str, tuple[bytes, int] | str]) -> bytes:
    """A tar that depends on nothing else: for each name content and mode, or the target of a symbolic link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for folder in sorted({str(parent) for name in files for parent in Path(name).parents} - {"."}):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name, value in files.items():
            entry = tarfile.TarInfo(name)
            if isinstance(value, str):
                entry.type, entry.mode, entry.linkname = tarfile.SYMTYPE, 0o777, value
                tar.addfile(entry)
            else:
                content, entry.mode = value
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def busybox_layer() -> bytes:
    """A tar with busybox and a few names for it."""
    files: dict[str, tuple[bytes, int] | str] = {"bin/busybox": (Path(_which("busybox")).read_bytes(), 0o755)}
    for name in ("sh", "cat", "echo", "ls", "sha256sum", "sleep", "tar"):
        files[f"bin/{name}"] = "busybox"
    return tar_of(files)


def _dockerfile(layers: Iterable[str]) -> str:
    # ADD unpacks a tar with the times that it has; COPY would give new folders the time of the build.
    return "".join(["FROM scratch\n", *(f"ADD {name} /\n" for name in layers), "ENV PATH=/bin\n"])


def _with_top(docker: Docker, reference: str, below: str) -> Image:
    greeting = f"hello from {reference}"
    script = tar_of({"bin/hello": (f"#!/bin/sh\necho {greeting}\n".encode(), 0o755)})
    dockerfile = f"FROM {below}\nADD top.tar /\nLABEL org.example.name={reference}\nCMD /bin/hello\n"
    identity = docker.build(dockerfile, {"top.tar": script}, reference)
    diff_ids = json.loads(docker.text("image", "inspect", "--format", "{{json .RootFS.Layers}}", identity))
    return Image(reference, identity, tuple(diff_ids), greeting, below)
