# SPDX-License-Identifier: Apache-2.0
"""Every image of two served sites, both ways: what was pinned is there afterwards, and names mean what they meant.

The sites have images in both layouts under the same names, and whatever a cluster gathers over the years. What a name
means is asked as a workflow asks it: by a container request.
"""

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import arvados
import arvados.collection
import googleapiclient.errors
import pytest

from arv_docker.arvados.catalog.link_classes import HASH, REPO_TAG
from arv_docker.arvados.client import Cluster
from arv_docker.ingest.service import Ingest, Options
from arv_docker.local.progress import SilentProgress
from arv_docker.model.reference import Reference
from arv_docker.site import LocalSite
from arv_docker.site.api import users
from arv_docker.site.folder import open_site
from arv_docker.store.tarballs import cache_folder

from ..archives import Image, classic, files_of, image
from .sites import Done, command, finished, served, started

DAY = "2024-01-02T00:00:00Z"
LATER = "2024-06-01T00:00:00Z"
LOW = files_of(b"low" * 400_000)


def build(text: str, created: str | None = DAY) -> Image:
    keys = {"created": created} if created else {}
    return image(LOW, files_of(text.encode()), os="linux", architecture="amd64", **keys)


@dataclass(frozen=True)
class Person:
    """A user of a site."""

    api: Any

    @property
    def uuid(self) -> str:
        return str(self.api.users().current().execute()["uuid"])

    def stores(self, made: Image, scratch: Path, *names: str, **options: Any) -> str:
        """Put an image into Keep as we do; return its collection."""
        (scratch / "image.tar").write_bytes(classic(made))
        ingest = Ingest(Cluster(self.api), Options(cache_folder(), **options), SilentProgress())
        results = [
            ingest.from_archive(scratch / "image.tar", Reference.parse(name))
            for name in names or (str(made.parsed.digest),)
        ]
        return results[0].uuid

    def stores_as_upstream(self, made: Image, *names: str, stamp: str | None = DAY, owner: str = "") -> str:
        """Put an image into Keep as arv-keepdocker does, and link it so: by links that pin nothing. Return its
        collection."""
        image_id = str(made.parsed.digest)
        writer = arvados.collection.Collection(api_client=self.api)
        with writer.open(f"{image_id}.tar", "wb") as stream:
            stream.write(classic(made))
        properties = {"image_timestamp": stamp} if stamp else {}
        writer.save_new(owner_uuid=owner or None)
        uuid = str(writer.manifest_locator())
        self.link(HASH, image_id, uuid, properties, owner)
        for name in names:
            self.link(REPO_TAG, name, uuid, properties, owner)
        return uuid

    def link(
        self,
        link_class: str,
        name: str,
        head: str,
        properties: dict[str, str] | None = None,
        owner: str = "",
        tail: str = "",
    ) -> None:
        body = {"link_class": link_class, "name": name, "head_uuid": head, "properties": properties or {}}
        self.api.links().create(body=body | ({"owner_uuid": owner} if owner else {})).execute()

    def pdh(self, uuid: str) -> str:
        return str(self.api.collections().get(uuid=uuid).execute()["portable_data_hash"])

    def trash(self, uuid: str) -> None:
        self.api.collections().delete(uuid=uuid).execute()


@dataclass(frozen=True)
class Place:
    """A site with its user, and another user whom nobody trusts, who has a project that all may read."""

    folder: Path
    me: Person
    stranger: Person
    shared: str

    def meaning(self, name: str) -> str | None:
        """The PDH that a container would run by that name."""
        body = {
            "command": ["true"],
            "container_image": name,
            "output_path": "/out",
            "cwd": "/",
            "mounts": {"/out": {"kind": "tmp", "capacity": 1 << 20}},
            "runtime_constraints": {"ram": 1 << 28, "vcpus": 1},
            "state": "Committed",
            "priority": 1,
        }
        try:
            request = self.me.api.container_requests().create(body=body).execute()
        except googleapiclient.errors.HttpError as error:
            if error.resp.status != 422:
                raise
            return None
        found = self.me.api.containers().get(uuid=request["container_uuid"]).execute()
        return str(found["container_image"])

    @property
    def names(self) -> set[str]:
        """Names that this user can see."""
        links = self.me.api.links().list(filters=[["link_class", "=", REPO_TAG]], limit=1000).execute()
        return {link["name"] for link in links["items"]}

    @property
    def pinned(self) -> set[str]:
        """PDHs of what can be read and has a name or an ID."""
        classes = [["link_class", "in", [REPO_TAG, HASH]]]
        links = self.me.api.links().list(filters=classes, limit=1000).execute()["items"]
        heads = sorted({link["head_uuid"] for link in links})
        found = self.me.api.collections().list(filters=[["uuid", "in", heads]], limit=1000).execute()["items"]
        return {collection["portable_data_hash"] for collection in found}

    @property
    def links(self) -> list[str]:
        """UUIDs of all links about images."""
        found = self.me.api.links().list(filters=[["link_class", "like", "docker%"]], limit=1000).execute()
        return sorted(link["uuid"] for link in found["items"])


@contextmanager
def running(folder: Path) -> Iterator[Place]:
    site = open_site(folder)
    users.create(site.database, site.settings, "stranger", is_admin=False)
    token = users.new_token(site.database, site.settings, "stranger", None)
    site.close()
    with LocalSite(folder) as site_running:
        me, stranger = (
            Person(arvados.api("v1", discoveryServiceUrl=site_running.discovery_url, token=it, cache=False))
            for it in (site_running.token, token)
        )
        shared = stranger.api.groups().create(body={"group_class": "project", "name": "free"}).execute()["uuid"]
        permission = {"link_class": "permission", "name": "can_read", "head_uuid": shared, "tail_uuid": me.uuid}
        stranger.api.links().create(body=permission).execute()
        yield Place(folder, me, stranger, shared)


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Place]:
    with running(tmp_path / "one") as place:
        yield place


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Place]:
    with running(tmp_path / "two") as place:
        yield place


def copy_all(one: Place, two: Place, tmp_path: Path, *words: str) -> Done:
    """Run the command between the sites, which it finds by settings files."""
    settings = tmp_path / "config" / "arvados"
    settings.mkdir(parents=True, exist_ok=True)
    bundle, home = tmp_path / "bundle.pem", tmp_path / "home"
    bundle.write_text("")
    home.mkdir(exist_ok=True)
    with ExitStack() as sites:
        for place in (one, two):
            variables = sites.enter_context(served(place.folder))
            keys = ("ARVADOS_API_HOST", "ARVADOS_API_TOKEN")
            text = "".join(f"{key}={variables[key]}\n" for key in keys)
            (settings / f"{place.folder.name}.conf").write_text(text)
            with bundle.open("a") as file:
                file.write(Path(variables["SSL_CERT_FILE"]).read_text())
        environment = {
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(tmp_path / "config"),
            "SSL_CERT_FILE": str(bundle),
            "PATH": "/usr/bin:/bin",
        }
        line = ["copy", "--json", "--all", *words, f"keep:{one.folder.name}/", f"keep:{two.folder.name}/"]
        return finished(started(command(*line), environment), 300)


def fill(one: Place, two: Place, tmp_path: Path) -> None:
    """What clusters gather over the years."""
    # Both layouts under the same names, all built at the same time.
    for name in ("app:1", "app:2"):
        one.me.stores_as_upstream(build(name), name)
        two.me.stores(build(name), tmp_path, name)
    # Two builds of one second by one name, linked one after the other, and the other way round.
    first, second = build("first"), build("second")
    one.me.stores_as_upstream(first, "twice:1")
    two.me.stores(second, tmp_path, "twice:1")
    time.sleep(1.1)
    one.me.stores_as_upstream(second, "twice:1")
    two.me.stores(first, tmp_path, "twice:1")
    # Several builds; the newest was stored first.
    one.me.stores_as_upstream(build("new", LATER), "build:latest", stamp=LATER)
    one.me.stores(build("old"), tmp_path, "build:latest")
    two.me.stores(build("old"), tmp_path, "build:latest")
    # A link that ranks its image by no time, though the image has one.
    one.me.stores_as_upstream(build("ranked"), "stamp:1")
    one.me.stores_as_upstream(build("unranked", LATER), "stamp:1", stamp=None)
    # In the trash here, or there.
    one.me.trash(one.me.stores(build("gone"), tmp_path, "gone:1"))
    one.me.stores(build("back"), tmp_path, "back:1")
    two.me.trash(two.me.stores(build("back"), tmp_path, "back:1"))
    one.me.stores_as_upstream(build("again"), "back:2")
    two.me.trash(two.me.stores_as_upstream(build("again"), "back:2"))
    # No name at all, and both collections of one image.
    one.me.stores_as_upstream(build("nameless"))
    two.me.stores(build("twin"), tmp_path, "twin:1", image_ids=("config", "manifest"))


def meanings(place: Place, names: Iterable[str]) -> dict[str, str | None]:
    return {name: place.meaning(name) for name in names}


def test_pins_and_meanings_are_equal_after_both_ways(one: Place, two: Place, tmp_path: Path) -> None:
    fill(one, two, tmp_path)
    pinned, meant = one.pinned | two.pinned, meanings(one, one.names)
    assert meant["gone:1"] is None
    assert len(meant) == 8
    done = copy_all(one, two, tmp_path)
    assert done.status == 0, done.told
    assert meanings(two, meant) == meant
    done = copy_all(two, one, tmp_path)
    assert done.status == 0, done.told
    assert one.pinned == two.pinned == pinned
    assert (
        meanings(one, two.names)
        == meanings(two, two.names)
        == {name: pdh for name, pdh in (meant | {"twin:1": two.meaning("twin:1")}).items() if name != "gone:1"}
    )
    before = one.links, two.links
    for source, target in ((one, two), (two, one)):
        done = copy_all(source, target, tmp_path)
        assert done.status == 0, done.told
        assert {(it["already"], it["bytes_sent"], it["links_written"]) for it in json.loads(done.out)} == {(True, 0, 0)}
    assert (one.links, two.links) == before


def test_what_strangers_say_is_left_out_and_differences_are_listed(one: Place, two: Place, tmp_path: Path) -> None:
    """Also where his link moved a name that this user had linked, and where the other cluster has a newer build."""
    his = one.stranger.stores_as_upstream(build("his"), "his:1", owner=one.shared)
    ours = one.me.pdh(one.me.stores(build("ours"), tmp_path, "moved:1", "app:1"))
    one.stranger.link(REPO_TAG, "moved:1", his, {"image_timestamp": "2031-01-01T00:00:00Z"}, one.shared)
    newer = two.me.pdh(two.me.stores(build("newer", LATER), tmp_path, "app:1"))
    done = copy_all(one, two, tmp_path)
    assert done.status == 8, done.told
    (copied,) = (it for it in json.loads(done.out) if "pdh" in it)
    assert (copied["pdh"], sorted(copied["differing"])) == (ours, ["app:1", "moved:1"])
    theirs = one.me.pdh(his)
    assert f"app:1: means {ours} on the one cluster, and {newer} on the other" in done.err
    assert f"moved:1: means {theirs} (which was not copied) on the one cluster, and {ours} on the other" in done.err
    assert f"left out: his:1, which means {his} by the word of {one.stranger.uuid}" in done.err
    assert f"left out: moved:1, which means {his} by the word of {one.stranger.uuid}" in done.err
    assert (two.meaning("his:1"), two.meaning("moved:1"), two.meaning("app:1")) == (None, ours, newer)
    trusting = copy_all(one, two, tmp_path, "--trust-readable")
    assert (two.meaning("his:1"), two.meaning("moved:1")) == (theirs, theirs)
    assert f"app:1: means {ours}" in trusting.err
