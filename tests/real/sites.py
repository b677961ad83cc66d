# SPDX-License-Identifier: Apache-2.0
"""The commands as a user runs them, against embedded sites, and what those sites hold afterwards.

No fixtures: those are in `conftest.py` beside this.
"""

import contextlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arv_docker.arvados.client import Cluster, CollectionRecord, Link
from arv_docker.arvados.stored import StoredImage
from arv_docker.images import verify
from arv_docker.local.progress import SilentProgress
from arv_docker.site import LocalSite

from .. import json_contract
from .engines import Image, Program

if TYPE_CHECKING:
    import pytest

TOP = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended."""

    status: int
    out: str
    err: str

    @property
    def told(self) -> str:
        """For the message of a failed assertion."""
        return f"exit code {self.status}\nstdout: {self.out}\nstderr: {self.err}"


def command(*words: str | Path, program: str = "arv_docker", prefix: Sequence[str] = ()) -> list[str]:
    """The command line of `arv-docker` or `arv-keepdocker` from this checkout."""
    return [*prefix, sys.executable, "-m", f"arv_docker.cli.{program}", *map(str, words)]


def started(
    line: Sequence[str], environment: Mapping[str, str] | None = None, folder: Path = TOP
) -> subprocess.Popen[str]:
    """A command that runs now, in a folder; `finished` waits for it."""
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(line, cwd=folder, env=environment, text=True, **pipes)


def finished(process: subprocess.Popen[str], timeout: float = 600) -> Done:
    """What a started command said, and how it ended."""
    with process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return Done(process.returncode, out, err)


class Site:
    """An embedded site in a folder, used by `--local=FOLDER` and looked at through its API."""

    def __init__(self, folder: Path, engine: Program | None = None) -> None:
        """`engine` is the one that the commands reach."""
        self.folder = folder
        self._engine = engine

    def make(self) -> None:
        """Make the site: commands that only read make none."""
        with LocalSite(self.folder):
            pass

    def environment(self, **variables: str) -> dict[str, str]:
        """For a command: that of the engine, without credentials of any cluster."""
        return (self._engine.environment if self._engine else dict(os.environ)) | variables

    def start(self, *words: str | Path, program: str = "arv_docker", **variables: str) -> subprocess.Popen[str]:
        """A command on this site that runs now."""
        return started(command(*words, f"--local={self.folder}", program=program), self.environment(**variables))

    def run(self, *words: str | Path, program: str = "arv_docker", **variables: str) -> Done:
        """A command on this site, run to its end."""
        done = finished(self.start(*words, program=program, **variables))
        if done.status == 0 and program == "arv_docker":
            json_contract.check(list(map(str, words)), done.out)
        return done

    def printed(self, *words: str | Path, program: str = "arv_docker", **variables: str) -> str:
        """What a command that must succeed prints on standard output, without the line end."""
        done = self.run(*words, program=program, **variables)
        assert done.status == 0, done.told
        return done.out.removesuffix("\n")

    @contextlib.contextmanager
    def opened(self) -> Iterator["Records"]:
        """The site's records, for as long as the block lasts."""
        import arvados

        with LocalSite(self.folder) as running:
            yield Records(arvados.api("v1", discoveryServiceUrl=running.discovery_url, token=running.token))

    def records(self) -> tuple[list[str], list[str]]:
        """The UUIDs of all collections, those in the trash too, and of all links."""
        if not self.folder.exists():
            return [], []
        with self.opened() as records:
            return [it.uuid for it in records.collections()], [it.uuid for it in records.links()]

    def blocks(self) -> list[Path]:
        """The files of its blocks, unfinished ones too."""
        return sorted((self.folder / "blocks").glob("*/*"))


class Records:
    """What a site holds."""

    def __init__(self, api: Any) -> None:
        self.api = api
        self.cluster = Cluster(api)

    def collections(self) -> list[CollectionRecord]:
        """All collections with manifest texts, those in the trash too."""
        found = self.api.collections().list(
            include_trash=True, select=[*CollectionRecord.FIELDS, "manifest_text"], limit=1000
        )
        return [CollectionRecord.of(item) for item in found.execute()["items"]]

    def links(self) -> list[Link]:
        """All links."""
        return list(self.cluster.links([]))

    def verified(self, collection: CollectionRecord) -> str:
        """The ID of the image in the collection, every byte read and compared."""
        return str(verify.verify(self.cluster, collection, quick=False, progress=SilentProgress()).config_digest)


def assert_stored_once(records: Records, image: Image, created: str) -> CollectionRecord:
    """The site holds the image under its name, right in every detail, and nothing else, not even in the trash."""
    (collection,) = records.collections()
    user = records.cluster.user_uuid
    short = image.id.removeprefix("sha256:")[:12]
    assert collection.name == f"Docker image {image.reference.replace('/', ' ')} {short}"
    assert collection.properties == {"docker-image-repo-tag": image.reference}
    assert collection.owner_uuid == user
    assert collection.manifest_text is not None
    assert collection.manifest_text.split()[-1].partition(":")[2].partition(":")[2] == (
        f"{image.id.replace(':', chr(92) + '072')}.tar"
    )
    links = records.links()
    layers = [link for link in links if link.link_class == "docker_image_layer"]
    digests = [link for link in links if link.link_class == "docker_image_digest"]
    named = [link for link in links if link not in layers + digests]
    assert sorted((link.link_class, link.name) for link in named) == [
        ("docker_image_hash", image.id),
        ("docker_image_repo+tag", image.reference),
    ]
    for link in links:
        assert (link.head_uuid, link.tail_uuid) == (collection.uuid, collection.pdh)
        assert (link.owner_uuid, link.modified_by) == (user, user)
        assert link.properties == ({} if link not in named else {"image_timestamp": created})
    assert len({link.name for link in layers}) == len(layers)
    assert {link.name for link in layers} <= set(image.diff_ids)
    assert [link.name for link in digests] == [str(StoredImage(records.cluster, collection).layout.manifest_digest)]
    assert records.verified(collection) == image.id
    return collection


def cached(home: Path) -> list[str]:
    """What a home's cache of saved tarballs holds: tarballs, records, locks, unfinished files."""
    return sorted(str(path.relative_to(home)) for path in (home / ".cache/arvados/docker").rglob("*"))


def show(capsys: "pytest.CaptureFixture[str]", *lines: str) -> None:
    """Lines for who watches the tests run: the figures that they measured."""
    with capsys.disabled():
        sys.stdout.write("".join(f"\n  {line}" for line in lines))


@contextlib.contextmanager
def served(folder: Path) -> Iterator[dict[str, str]]:
    """The site in a folder, served over HTTPS; gives the variables that `arv-docker site env` prints for clients."""
    process = started(command("site", "serve", "--dir", folder))
    try:
        deadline = time.monotonic() + 30
        while not (folder / "address").exists():
            assert process.poll() is None, finished(process).told
            assert time.monotonic() < deadline
            time.sleep(0.05)
        said = finished(started(command("site", "env", "--dir", folder)))
        assert said.status == 0, said.told
        yield dict(_variable(line) for line in said.out.splitlines())
    finally:
        process.terminate()
        finished(process)


def _variable(line: str) -> tuple[str, str]:
    export, assignment = shlex.split(line)
    assert export == "export"
    name, _, value = assignment.partition("=")
    return name, value
