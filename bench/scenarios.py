# SPDX-License-Identifier: Apache-2.0
"""What is measured: each scenario runs commands in rounds, in rotated order, and notes what each of them took."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from arv_docker.archive.canonical import ALIGNED_SPAN
from bench import family as families
from bench.endpoint import Counts, Endpoint
from bench.family import Contents, Family, Say
from bench.measure import Failed, Run, line, measured
from tests.real.engines import CLIENT_VARIABLES, Docker, Engine, Podman, Program, remove_tree

T = TypeVar("T")

_LOCATOR = re.compile(r" [0-9a-f]{32}\+\d+")


@dataclass(frozen=True, slots=True)
class Programs:
    """The folders of the two programs' commands, each in an environment of its own."""

    ours: Path
    upstream: Path

    def ingest(self, image: str, *options: str) -> list[str]:
        """Our command that puts an image into Keep and writes nothing to disk."""
        return [str(self.ours / "arv-docker"), "ingest", "--no-cache", *options, image]

    def upstream_ingest(self, image: str) -> list[str]:
        """The original's."""
        return [str(self.upstream / "arv-keepdocker"), "--no-cache", image]


class Bench:
    """Runs scenarios on the images of one engine."""

    def __init__(
        self, docker: Program, family: Family, programs: Programs, *, work: Path, results: Path, rounds: int, say: Say
    ) -> None:
        """`results` is the file to which a line for each run is appended; what commands say goes to `log` in `work`."""
        self.docker = docker
        self.family = family
        self.programs = programs
        self.rounds = rounds
        # Of what takes well under a second.
        self.short_rounds = rounds if family.quick else max(rounds, 11)
        self.say = say
        self._work = work
        self._results = results
        self._log = work / "log"
        self._sites = 0

    # -- what scenarios are made of ------------------------------------------------------

    def contents(self, image: str) -> Contents:
        """What the image is as a tar."""
        return families.contents(self.docker, image, self._work / "contents")

    def aligned(self, image: str) -> int:
        """How many of its layers begin blocks; the header counts."""
        return sum(size + 512 >= ALIGNED_SPAN for size in self.contents(image).layers.values())

    @contextmanager
    def endpoint(self, kind: str) -> Iterator[Endpoint]:
        """A fresh one, `null` or `site`, gone afterwards."""
        self._sites += 1
        root = self._work / "sites" / str(self._sites)
        shutil.rmtree(root, ignore_errors=True)
        endpoint = Endpoint(root, null=kind == "null")
        try:
            yield endpoint
        finally:
            endpoint.close()
            shutil.rmtree(root)

    def note(
        self,
        what: tuple[str, str, str],
        place: tuple[int, int],
        command: Sequence[str],
        at: tuple[str, Endpoint] | None = None,
        engine: Program | None = None,
        **known: int,
    ) -> str:
        """Runs a command and notes what it took; gives what it printed.

        `what` are scenario, image and who, `place` round and order, `at` the endpoint with its kind. `engine` is the
        one that the command reaches, if it is not that of the images.
        """
        home = self._work / "home"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        variables = at[1].variables if at else {}
        before = at[1].counts() if at else Counts()
        cost, printed = measured(command, _environment(engine or self.docker, home, variables), self._log)
        counts = at[1].counts() - before if at else Counts()
        if at:
            known = known | {"blocks": _blocks_of_last(at[1].folder)}
        scenario, image, who = what
        size = self.contents(image).size if image and "size" not in known else known.pop("size", 0)
        run = Run(
            *(scenario, image, who, at[0] if at else "", *place, size),
            **asdict(cost) | asdict(counts) | known,
        )
        with self._results.open("a") as results:
            results.write(line(run) + "\n")
        self.say(f"{scenario} {image} {who} {run.endpoint}: {run.wall:.2f} s, round {run.round}")
        return printed

    def quietly(self, command: Sequence[str], endpoint: Endpoint) -> None:
        """Runs a command that only prepares."""
        home = self._work / "home"
        home.mkdir(exist_ok=True)
        measured(command, _environment(self.docker, home, endpoint.variables), self._log)

    @contextmanager
    def empty_engine(self, engine: Callable[[Path], Docker | Podman]) -> Iterator[Docker | Podman]:
        """Another engine, with no images."""
        folder = self._work / "engines" / "empty"
        remove_tree(folder)
        folder.parent.mkdir(exist_ok=True)
        started = engine(folder)
        try:
            yield started
        finally:
            if isinstance(started, Docker):
                started.close()
            remove_tree(folder)


def rotated(items: Sequence[T], number: int) -> list[tuple[int, T]]:
    """The items with their places, each round beginning with another one."""
    begin = number % len(items)
    return list(enumerate([*items[begin:], *items[:begin]]))


def _environment(engine: Program, home: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """For a measured command: nobody's settings, cache or credentials."""
    foreign = ("ARVADOS_", "ARV_DOCKER_", "XDG_", "PYTHON", *CLIENT_VARIABLES)
    own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    engines = {name: value for name, value in engine.environment.items() if name.startswith(CLIENT_VARIABLES)}
    return own | engines | {"HOME": str(home)} | dict(variables)


def _blocks_of_last(site: Path) -> int:
    """Blocks of the image that was stored last."""
    with closing(sqlite3.connect(f"file:{site}/site.db?mode=ro", uri=True)) as database:
        newest = "SELECT manifest_text FROM collections ORDER BY created_at DESC LIMIT 1"
        found = database.execute(newest).fetchone()
    return len(_LOCATOR.findall(found[0])) if found else 0


# -- the scenarios -----------------------------------------------------------------------


def first(bench: Bench) -> None:
    """An image that Keep does not know, by both programs, beside a save that is thrown away."""
    for image in dict.fromkeys((bench.family.small, bench.family.a, bench.family.b)):
        _first(bench, "null", image, ("save", "ours", "upstream"))


def first_on_the_site(bench: Bench) -> None:
    """The same into the site."""
    for image in (bench.family.a, bench.family.b):
        _first(bench, "site", image, ("ours", "upstream"))


def _first(bench: Bench, kind: str, image: str, programs: Sequence[str]) -> None:
    aligned = bench.aligned(image)
    for number in range(bench.rounds):
        for order, who in rotated(programs, number):
            what, place = ("first", image, who), (number, order)
            if who == "save":
                bench.note(what, place, _save(image))
                continue
            command = bench.programs.ingest(image) if who == "ours" else bench.programs.upstream_ingest(image)
            with bench.endpoint(kind) as endpoint:
                bench.note(what, place, command, (kind, endpoint), aligned=aligned)


def _save(image: str) -> list[str]:
    return ["sh", "-c", 'docker save "$0" >/dev/null', image]


def tarball(bench: Bench) -> None:
    """The same with the tarball that is kept until the end, as is the default."""
    with bench.endpoint("null") as endpoint:
        command = [word for word in bench.programs.ingest(bench.family.a) if word != "--no-cache"]
        bench.note(("tarball", bench.family.a, "ours"), (0, 0), command, ("null", endpoint))


def next_version(bench: Bench) -> None:
    """The next version of an image that Keep has."""
    before, after = bench.family.a, bench.family.after
    allowed = bench.contents(after).to_send_after(bench.contents(before), ALIGNED_SPAN)
    for number in range(1 if bench.family.quick else bench.rounds):
        for order, who in rotated(("save", "ours", "upstream"), number):
            what, place = ("next", after, who), (number, order)
            if who == "save":
                bench.note(what, place, _save(after))
                continue
            command = bench.programs.ingest if who == "ours" else bench.programs.upstream_ingest
            with bench.endpoint("null") as endpoint:
                bench.quietly(command(before), endpoint)
                bench.note(what, place, command(after), ("null", endpoint), allowed=allowed)


def family(bench: Bench) -> None:
    """All images, one after the other, into the site; then each read back, verified and loaded."""
    with bench.endpoint("site") as endpoint:
        for order, image in enumerate(bench.family.everything):
            what, at = ("family", image, "ours"), ("site", endpoint)
            bench.note(what, (0, order), bench.programs.ingest(image), at, aligned=bench.aligned(image))
        for order, image in enumerate(bench.family.everything):
            command = [str(bench.programs.ours / "arv-docker"), "verify", image]
            bench.note(("family verified", image, "ours"), (0, order), command, ("site", endpoint))
        with bench.empty_engine(Docker) as engine:
            for order, image in enumerate(bench.family.everything):
                command = [str(bench.programs.ours / "arv-docker"), "load", image]
                loaded = bench.note(("family loaded", image, "ours"), (0, order), command, ("site", endpoint), engine)
                _check_same(loaded, bench.docker.text("image", "inspect", "--format", "{{.Id}}", image))


def many_layers(bench: Bench) -> None:
    """An image of 100 small layers, as Nix makes them, from a file."""
    number, size = bench.family.layers
    archive = bench._work / "layers.tar"
    families.many_layers(archive, number, size)
    with bench.endpoint("null") as endpoint:
        command = bench.programs.ingest("layers:1", "--from-archive", str(archive))
        bench.note(
            ("many-layers", "", "ours"), (0, 0), command, ("null", endpoint), size=archive.stat().st_size, aligned=0
        )
    archive.unlink()


def together(bench: Bench) -> None:
    """Several versions in one command, beside a save of each of them."""
    versions = bench.family.versions
    size = sum(bench.contents(image).size for image in versions)
    for number in range(bench.rounds):
        for order, who in rotated(("save", "ours"), number):
            if who == "save":
                for image in versions:
                    bench.note(("together", image, who), (number, order), _save(image))
                continue
            with bench.endpoint("null") as endpoint:
                command = [*bench.programs.ingest(versions[0]), *versions[1:]]
                bench.note(("together", "", who), (number, order), command, ("null", endpoint), size=size)


def again(bench: Bench) -> None:
    """An image that is stored already."""
    image = bench.family.a
    with bench.endpoint("null") as endpoint:
        bench.quietly(bench.programs.ingest(image), endpoint)
        commands = {"ours": bench.programs.ingest(image), "upstream": bench.programs.upstream_ingest(image)}
        for number in range(bench.short_rounds):
            for order, who in rotated(list(commands), number):
                bench.note(("again", image, who), (number, order), commands[who], ("null", endpoint))


def start(bench: Bench) -> None:
    """The help, beside a Python that does nothing."""
    ours = bench.programs.ours
    commands = {"python": [str(ours / "python"), "-c", "pass"], "ours": [str(ours / "arv-docker"), "--help"]}
    for number in range(bench.short_rounds):
        for order, who in rotated(list(commands), number):
            bench.note(("start", "", who), (number, order), commands[who])


def load(bench: Bench) -> None:
    """An image out of the site into an empty engine, beside the engine's own load of a local tar."""
    image = bench.family.a
    tar = bench._work / "image.tar"
    bench.docker.run("save", "--output", tar, image)
    commands = {
        "docker load": ["docker", "load", "--quiet", "--input", str(tar)],
        "ours": [str(bench.programs.ours / "arv-docker"), "load", image],
    }
    with bench.endpoint("site") as endpoint, bench.empty_engine(Docker) as engine:
        bench.quietly(bench.programs.ingest(image), endpoint)
        for number in range(bench.rounds):
            for order, who in rotated(list(commands), number):
                at = ("site", endpoint) if who == "ours" else None
                bench.note(("load", image, who), (number, order), commands[who], at, engine)
                engine.empty()
    tar.unlink()


def load_next(bench: Bench) -> None:
    """The next version into an engine that has the one before, beside the same into an empty one."""
    before, after = bench.family.a, bench.family.after
    wanted = bench.docker.text("image", "inspect", "--format", "{{.Id}}", after)
    allowed = bench.contents(after).changed_since(bench.contents(before))
    with bench.endpoint("site") as endpoint:
        for image in (before, after):
            bench.quietly(bench.programs.ingest(image), endpoint)
        for kind in (Docker, _podman):
            with bench.empty_engine(kind) as engine:
                _load_next(bench, engine, endpoint, wanted, allowed)


def _load_next(bench: Bench, engine: Docker | Podman, endpoint: Endpoint, wanted: str, allowed: int) -> None:
    before, after = bench.family.a, bench.family.after
    name = type(engine).__name__.lower()
    load = [str(bench.programs.ours / "arv-docker"), "load", "--engine", name]
    for number in range(bench.rounds):
        for order, who in rotated(("in full", "next version"), number):
            if who == "next version":
                home = bench._work / "home"
                measured([*load, before], _environment(engine, home, endpoint.variables), bench._log)
            what, place, at = (f"load-next-{name}", after, who), (number, order), ("site", endpoint)
            bench.note(what, place, [*load, after], at, engine, allowed=allowed)
            _check_usable(engine, wanted, name)
            engine.empty()


def _podman(folder: Path) -> Podman:
    """Podman as most have it, with overlays; with copies where the file system of the folder carries no overlays."""
    overlays = Podman(folder, "overlay")
    if not subprocess.run(["podman", "info"], env=overlays.environment, capture_output=True).returncode:
        return overlays
    remove_tree(folder)
    return Podman(folder)


def _check_usable(engine: Engine, wanted: str, name: str) -> None:
    """The image is listed, can be saved again, and runs."""
    identity = wanted.removeprefix("sha256:")
    if identity not in {listed.removeprefix("sha256:") for listed in engine.image_ids()}:
        raise Failed(f"{name} does not list the image that was loaded")
    command = [name, "save", identity]
    with subprocess.Popen(command, env=engine.environment, stdout=subprocess.DEVNULL) as saving:
        if saving.wait():
            raise Failed(f"{name} cannot save the image that was loaded")
    engine.run("run", "--rm", "--network", "none", identity)


def _check_same(loaded: str, wanted: str) -> None:
    if loaded != wanted:
        raise Failed(f"the image was loaded as {loaded}, not as {wanted}")


SCENARIOS: Mapping[str, Callable[[Bench], None]] = {
    "start": start,
    "again": again,
    "first": first,
    "tarball": tarball,
    "next": next_version,
    "many-layers": many_layers,
    "together": together,
    "load": load,
    "load-next": load_next,
    "first-site": first_on_the_site,
    "family": family,
}
