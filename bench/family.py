# SPDX-License-Identifier: Apache-2.0
"""The images that are measured, built by a real engine from real packages, and a small family that is made in seconds.

The full one are 13 images as a project has them over time: a base, a Python in it (built twice), six versions of an
application, two builds of the same packages, and a large image in two versions; 12.5 GB as tars, 4.6 GB of layers.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.real.engines import Program, tar_of

Say = Callable[[str], None]
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Family:
    """The images by what they are for: `a` is the usual one, `after` its next version, `b` the large one.

    `layers` are number and size of the layers of an image with very many. `make` builds what an engine lacks.
    """

    small: str
    a: str
    b: str
    after: str
    versions: tuple[str, ...]
    everything: tuple[str, ...]
    layers: tuple[int, int]
    quick: bool
    make: Callable[[Program, Path, Say], None]


@dataclass(frozen=True, slots=True)
class Contents:
    """What an image is as the engine saves it: bytes of the tar, and of each layer by its diff_id."""

    size: int
    layers: Mapping[str, int]

    def changed_since(self, earlier: Contents) -> int:
        """Bytes of the layers that the earlier one has not."""
        return sum(size for diff_id, size in self.layers.items() if diff_id not in earlier.layers)

    def to_send_after(self, earlier: Contents, least_aligned: int) -> int:
        """Bytes of the layers that changed; all small ones share blocks, so that they go together."""
        changed = {diff_id: size for diff_id, size in self.layers.items() if diff_id not in earlier.layers}
        packed = {diff_id: size for diff_id, size in self.layers.items() if size < least_aligned}
        both = changed | packed if changed.keys() & packed.keys() else changed
        return sum(both.values())


def contents(docker: Program, image: str, cache: Path) -> Contents:
    """Saves the image to count it; what was counted once is in the folder `cache`."""
    found = json.loads(docker.text("image", "inspect", image))[0]
    note = cache / found["Id"].removeprefix("sha256:")
    if not note.exists():
        size, sizes = _saved(docker, image)
        cache.mkdir(exist_ok=True)
        note.write_text(json.dumps([size, sizes]))
    size, sizes = json.loads(note.read_text())
    return Contents(size, dict(zip(found["RootFS"]["Layers"], sizes, strict=True)))


def _saved(docker: Program, image: str) -> tuple[int, list[int]]:
    """Bytes of the saved tar, and of its layers in the image's order."""
    with subprocess.Popen(["docker", "save", image], env=docker.environment, stdout=subprocess.PIPE) as saving:
        assert saving.stdout
        sizes: dict[str, int] = {}
        layers: list[str] = []
        with tarfile.open(fileobj=saving.stdout, mode="r|") as tar:
            for member in tar:
                # A layer that comes twice is a link to the first.
                linked = os.path.normpath(Path(member.name).parent / member.linkname) if member.issym() else ""
                sizes[member.name] = sizes[linked] if linked else member.size
                if member.name == "manifest.json":
                    manifest = tar.extractfile(member)
                    assert manifest
                    layers = json.load(manifest)[0]["Layers"]
            size = tar.offset
        saving.stdout.read()
    return size, [sizes[layer] for layer in layers]


def many_layers(path: Path, number: int, size: int) -> None:
    """A docker-archive of an image with so many layers of so many bytes each, as Nix makes them."""
    from tests.archives import hex_of

    def member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))

    diff_ids = []
    with tarfile.open(path, "w") as tar:
        for layer in range(number):
            content = tar_of({f"store/{layer}": (random.Random(layer).randbytes(size), 0o644)})
            diff_ids.append(hex_of(content))
            member(tar, f"{diff_ids[-1]}.tar", content)
        rootfs = {"type": "layers", "diff_ids": [f"sha256:{diff_id}" for diff_id in diff_ids]}
        config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode()
        member(tar, f"{hex_of(config)}.json", config)
        layers = [f"{diff_id}.tar" for diff_id in diff_ids]
        manifest = [{"Config": f"{hex_of(config)}.json", "RepoTags": [], "Layers": layers}]
        member(tar, "manifest.json", json.dumps(manifest).encode())


# -- the small family --------------------------------------------------------------------


def _make_quick(docker: Program, work: Path, say: Say) -> None:
    """A program, 40 MiB, an 18 MiB layer, and a small one on top, of which versions share most."""
    del work
    if not _missing(docker, QUICK.everything):
        return
    say("building a small family of images")
    busybox = shutil.which("busybox")
    assert busybox, "no busybox in PATH"
    program = tar_of({"bin/busybox": (Path(busybox).read_bytes(), 0o755), "bin/echo": "busybox"})
    noise = {name: _noise(seed, size) for name, (seed, size) in _QUICK_FILES.items()}
    for image, layers in _QUICK_LAYERS.items():
        files = {"program.tar": program, **{f"{layer}.tar": noise[layer] for layer in layers}}
        lines = ["FROM scratch", *(f"ADD {name} /" for name in files), f'CMD ["/bin/echo", "{image}"]']
        context = tar_of(
            {"Dockerfile": ("\n".join(lines).encode(), 0o644)} | {name: (files[name], 0o644) for name in files}
        )
        docker.run("build", "--quiet", "--network", "none", "--tag", image, "-", stdin=context)


def _noise(seed: int, size: int) -> bytes:
    return tar_of({f"data/{seed}": (random.Random(seed).randbytes(size), 0o644)})


_QUICK_FILES = {
    "data": (1, 40 * MIB),
    "packages": (2, 18 * MIB),
    "packages2": (3, 18 * MIB),
    "app": (4, 4 * MIB),
    "app2": (5, 4 * MIB),
}
_QUICK_LAYERS = {
    "quick/app:v1": ("data", "packages", "app"),
    "quick/app:v2": ("data", "packages", "app2"),
    "quick/app:v3": ("data", "packages2", "app2"),
}


# -- the full family ---------------------------------------------------------------------

#: What is installed into the trees that images are made of; two trees of the same packages differ in their times.
_SCIENCE = ("numpy==1.26.4", "scipy==1.13.1")
_DEPENDENCIES = ("requests==2.32.3", "jinja2==3.1.6", "click", "pyyaml", "lxml")
_TREES = {
    "science": (*_SCIENCE, "pandas==2.2.2"),
    "science-again": (*_SCIENCE, "pandas==2.2.2"),
    "science-newer": (*_SCIENCE, "pandas==2.2.3"),
    "dependencies": (*_DEPENDENCIES, "sqlalchemy==2.0.30", "cryptography==43.0.0"),
    "dependencies-newer": (*_DEPENDENCIES, "sqlalchemy==2.0.31", "cryptography==43.0.1"),
    "app": ("sympy==1.12",),
    "big": ("scikit-learn", "matplotlib", "pyarrow", "numba"),
}
_BASE, _PYTHON = "perf/minbase:12", "perf/python:3.11"
_SITE = "/usr/local/lib/python3.11/dist-packages"
_APT = "apt-get install -y -qq --no-install-recommends"
_TIDY = ">/dev/null && rm -rf /var/lib/apt/lists/*"
_TOOLS = "build-essential gfortran cmake git r-base-core openjdk-17-jdk-headless samtools bcftools"

#: Of each version of the application: the trees, and whether every file of it is as new as the version.
_VERSIONS = (
    ("science", "dependencies", True),
    ("science", "dependencies", True),
    ("science", "dependencies-newer", True),
    ("science", "dependencies-newer", True),
    ("science-newer", "dependencies-newer", True),
    ("science-newer", "dependencies-newer", False),
)
_EDITED = 20


def _make_full(docker: Program, work: Path, say: Say) -> None:
    """Builds what the engine lacks; needs root, debootstrap, and the package indexes of Debian and of Python."""
    if not (missing := _missing(docker, FULL.everything)):
        return
    say(f"building {len(missing)} images of the family; the first time about 20 minutes and 12 GB of disk")
    for tree, requirements in _TREES.items():
        _install(work / "trees" / tree, requirements, say)
    for image in missing:
        say(f"building {image}")
        context = work / "context"
        shutil.rmtree(context, ignore_errors=True)
        context.mkdir()
        _build(docker, image, context, work / "trees")
        shutil.rmtree(context)


def _build(docker: Program, image: str, context: Path, trees: Path) -> None:
    name, _, tag = image.partition("/")[2].partition(":")
    lines, anew = [f"FROM {_PYTHON}"], False
    if name == "minbase":
        _import_base(docker, image, context)
        return
    if name == "python":
        packages = "python3 python3-pip ca-certificates procps"
        lines = [f"FROM {_BASE}", f"RUN apt-get update -qq && {_APT} {packages} {_TIDY}", "ENV PYTHONUNBUFFERED=1"]
        anew = tag == "rebuild"
    elif name == "app":
        version = int(tag.removeprefix("v"))
        science, dependencies, fresh = _VERSIONS[version - 1]
        _take(trees, context, sci=science, deps=dependencies)
        _application(trees / "app", context / "app", version, fresh=fresh)
        lines += [f"COPY sci {_SITE}", f"COPY deps {_SITE}", "COPY app /opt/app", f"ENV APP_VERSION={version}"]
        lines.append('CMD ["python3", "-c", "import numpy, pandas"]')
    elif name == "rebuild":
        _take(trees, context, sci="science" if tag == "a" else "science-again")
        (context / "who").write_text(tag)
        lines += [f"COPY sci {_SITE}", "COPY who /etc/who"]
        anew = True
    else:
        _take(trees, context, sci="science", big="big")
        shutil.copytree(trees / "app", context / "app", symlinks=True)
        (context / "app" / "VERSION").write_text(tag)
        install = f"RUN apt-get update -qq && DEBIAN_FRONTEND=noninteractive {_APT} {_TOOLS} {_TIDY}"
        lines += [install, f"COPY sci {_SITE}", "COPY big /opt/big", "COPY app /opt/app"]
    (context / "Dockerfile").write_text("\n".join(lines))
    options = ["--no-cache"] if anew else []
    docker.run("build", "--network", "host", "--quiet", *options, "--tag", image, context, timeout=3600)


def _import_base(docker: Program, image: str, folder: Path) -> None:
    root = folder / "root"
    subprocess.run(["debootstrap", "--variant=minbase", "bookworm", root], check=True, stdout=sys.stderr)
    subprocess.run(["tar", "-C", root, "-cf", folder / "root.tar", "."], check=True)
    docker.run("import", folder / "root.tar", image)


def _install(tree: Path, requirements: Sequence[str], say: Say) -> None:
    if tree.exists():
        return
    say(f"installing {' '.join(requirements)}")
    unfinished = tree.with_suffix(".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    options = ["--quiet", "--disable-pip-version-check", "--python-version", "3.11", "--only-binary", ":all:"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(unfinished), *requirements]
    subprocess.run(command, check=True, stdout=sys.stderr)
    unfinished.rename(tree)


def _take(trees: Path, context: Path, **chosen: str) -> None:
    """Trees into the context, as hard links, so that their times are the very same."""
    for name, tree in chosen.items():
        shutil.copytree(trees / tree, context / name, copy_function=os.link)


def _application(tree: Path, to: Path, version: int, *, fresh: bool) -> None:
    """An application in a version: 20 files edited in each, 3 MiB new in each, 6 MiB that never change."""
    shutil.copytree(tree, to, ignore=shutil.ignore_patterns("__pycache__"))
    sources = sorted(to.rglob("*.py"))
    for edit in range(2, version + 1):
        for source in random.Random(edit).sample(sources, _EDITED):
            lines = source.read_text().split("\n")
            source.write_text("\n".join([*lines[: len(lines) // 2], f"# edit {edit}", *lines[len(lines) // 2 :]]))
    (to / "artefact.bin").write_bytes(random.Random(1000 + version).randbytes(3 * MIB))
    (to / "static.bin").write_bytes(random.Random(7).randbytes(6 * MIB))
    (to / "VERSION").write_text(str(version))
    time = 1_760_000_000 + (version if fresh else 5) * 86_400
    for path in _all(to):
        os.utime(path, (time, time))


def _all(folder: Path) -> Iterator[Path]:
    yield folder
    yield from folder.rglob("*")


def _missing(docker: Program, images: Iterable[str]) -> list[str]:
    listed = docker.text("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
    return [image for image in images if image not in listed]


_APPS = tuple(f"perf/app:v{number}" for number in range(1, len(_VERSIONS) + 1))

FULL = Family(
    small=_PYTHON,
    a=_APPS[0],
    b="perf/large:1",
    after=_APPS[1],
    versions=_APPS,
    everything=(
        *(_BASE, _PYTHON, "perf/python:rebuild", *_APPS),
        *("perf/rebuild:a", "perf/rebuild:b", "perf/large:1", "perf/large:2"),
    ),
    layers=(100, 5 * MIB),
    quick=False,
    make=_make_full,
)

QUICK = Family(
    small="quick/app:v1",
    a="quick/app:v1",
    b="quick/app:v1",
    after="quick/app:v2",
    versions=tuple(_QUICK_LAYERS),
    everything=tuple(_QUICK_LAYERS),
    layers=(100, 256 << 10),
    quick=True,
    make=_make_quick,
)
