# SPDX-License-Identifier: Apache-2.0
"""The second recorded conversation with a real Arvados: containers, workflows, uses of images, special groups.

As `test_recordings` with the first; here the site even takes the recorded UUIDs and portable data hashes, because many
lists are ordered by them. On the recorded server a dispatcher ran two of the containers; here nothing runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from arv_docker.site import LocalSite
from arv_docker.site.api import users
from arv_docker.site.folder import Site, open_site
from arv_docker.site.store.files import write_private
from arv_docker.site.store.settings import Settings, new_settings, new_uuid

from .conftest import Direct, Web
from .test_recordings import RECORDINGS, SIGNATURE, UUID, Replay, recording

pytestmark = pytest.mark.skipif(not RECORDINGS.is_dir(), reason=f"no recordings in {RECORDINGS}")

ALICE, BOB, ADMIN = "zzzzz-tpzed-0z30p1i7m12xfw1", "zzzzz-tpzed-ts5xylzys57j9fl", "zzzzz-tpzed-adminadminadmin"
PROJECT = "zzzzz-j7d0g-r7bbp1st5vgoecb"

#: Outside of what the site is: a dispatcher's doings, logs, what a run leaves behind, the sweep by request.
OUTSIDE = frozenset({*range(167, 170), *range(227, 235), *range(316, 319), 319, 320, 321, 322, 323, *range(324, 328)})

#: Every difference that is left: number of the recording, place in the answer.
DIFFERENCES = frozenset(
    {
        # Follows from the time at which a request was created.
        *((number, "priority") for number in (150, 239)),
        # No dispatcher: containers wait, and a request whose container waits is committed.
        *((number, place) for number in (170, 171, 172, 174) for place in ("log_uuid", "output_uuid", "state")),
        (174, "priority"),
        (176, "started_at"),
        (176, "state"),
        *((number, place) for number in (215, 222, 308) for place in ("items", "items_available")),
        # `any` is no attribute here.
        (203, "status"),
        # Another workflow of that user, from before the recording.
        (224, "items[1].name"),
        # No managed properties.
        *((number, "properties.responsible_person_uuid") for number in (236, 246, 249, 274)),
        # Nobody puts into the trash what all share: 422, also where a real server's administrator destroys it.
        *((number, "status") for number in (284, 285, 286, 289, 291, 294, 296, 299, 301)),
        *((number, "is_trashed") for number in (287, 292, 297, 302)),
        # A real server names the system user twice.
        *((number, "writable_by") for number in (288, 293, 298)),
        # Users are administered by command: 501.
        (303, "status"),
        (304, "status"),
        # A long query is as good as a form.
        (315, "status"),
    }
)

#: The images: name, portable data hash, collection, owner, size and ID of the recorded server's collections.
IMAGES = (
    ("usage/a:1", "f2c0df590c092029cbbed42ecdfb2fe9+124", "zzzzz-4zz18-apw8dj8ef0p9dz4", ALICE, 350, "a1"),
    ("usage/b:1", "62d3c87164187f96bf5c7a801dab976d+124", "zzzzz-4zz18-bbbbbbbbbbbbbbb", ALICE, 350, "b2"),
    ("usage/p:1", "1d9331a1b50c6a8db9fd2d5df10c004f+124", "zzzzz-4zz18-3nv3r6avt8g2oag", PROJECT, 364, "c3"),
    ("usage/bob:1", "eddc22bf75faaa8373101a3b280c8985+124", "zzzzz-4zz18-4n08azhegct4yoz", BOB, 350, "d4"),
)
TIMESTAMP = {"properties": {"image_timestamp": "2024-07-01T10:00:00Z"}}
BOBS_LINK = "zzzzz-o0j2j-hcp2vfkh3c5ev7y"
IMAGE_X = ("usage/x:1", "f062a84d29ab495140676c2b0d5b1000+124", "zzzzz-4zz18-9l0kleu1i5466d9", ALICE, 420, "e5")


class Seeds:
    """Records that the recorded server had before the first recorded request, or got between two of them."""

    def __init__(self, site: Site, tokens: dict[str, str]) -> None:
        self.api = Direct(site)
        self.tokens = tokens
        #: UUIDs that the next records get, by the five letters of their kind.
        self.planned: dict[str, list[str]] = {}

    def new_uuid(self, infix: str) -> str:
        """The planned UUID of a new record, else any."""
        planned = self.planned.get(infix)
        return planned.pop(0) if planned else new_uuid("zzzzz", infix)

    def plan(self, body: Any) -> None:
        """Give what a request creates the recorded UUIDs."""
        self.planned = {}
        for name in ("uuid", "container_uuid"):
            uuid = body.get(name) if isinstance(body, dict) else None
            if isinstance(uuid, str) and UUID.fullmatch(uuid):
                self.planned[uuid[6:11]] = [uuid]

    def make(self, resource: str, attributes: Any, uuid: str = "", by: str = ALICE) -> str:
        """A record, made by its owner."""
        self.planned = {uuid[6:11]: [uuid]} if uuid else {}
        return str(self.api.ok("POST", resource, attributes, token=self.tokens[by])["uuid"])

    def image(
        self, name: str, pdh: str, uuid: str, owner: str, size: int, number: str, links: tuple[str, str] = ("", "")
    ) -> None:
        """An image with its two links."""
        by = owner if owner in self.tokens else ALICE
        block = "374654445ec31c54cfa0515aad9a6ee4"
        digest = f"sha256:{number * 32}"
        self.planned = {"4zz18": [uuid]}
        self.api.ok(
            "POST",
            "collections",
            {
                "manifest_text": f". {block}+{size} 0:{size}:{digest.replace(':', chr(92) + '072')}.tar\n",
                "name": f"Docker image {name.replace('/', ' ')} {digest[:12]}",
                "owner_uuid": owner,
            },
            token=self.tokens[ADMIN],
        )
        self.rename(uuid, pdh)
        self.sql("UPDATE collections SET modified_by_user_uuid = ? WHERE uuid = ?", by, uuid)
        for link_class, text, link in (
            ("docker_image_repo+tag", name, links[0]),
            ("docker_image_hash", digest, links[1]),
        ):
            attributes = {"link_class": link_class, "name": text, "head_uuid": uuid, "owner_uuid": owner}
            self.make("links", attributes | TIMESTAMP, link, by)

    def file(self, name: str, pdh: str, text: str) -> None:
        """A collection that a name is linked to, though it is no image."""
        uuid = self.make("collections", {"manifest_text": text})
        self.rename(uuid, pdh)
        self.make("links", {"link_class": "docker_image_repo+tag", "name": name, "head_uuid": uuid})

    def rename(self, uuid: str, pdh: str) -> None:
        """Give a collection the recorded hash, though the text is not known."""
        self.sql("UPDATE collections SET portable_data_hash = ? WHERE uuid = ?", pdh, uuid)

    def sql(self, statement: str, *values: str) -> None:
        """Change the database behind the API's back."""
        with self.api.site.database.writing() as connection:
            connection.execute(statement, values)


@pytest.fixture
def seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Seeds]:
    """The recorded server as it was before number 81."""
    folder = tmp_path / "site"
    folder.mkdir()
    settings = replace(new_settings("2026-11-20T00:00:00.000000000Z", "alice"), cluster_id="zzzzz", user_uuid=ALICE)
    write_private(folder / "settings.json", settings.to_json().encode())
    site = open_site(folder)
    for name, uuid in (("bob", BOB), ("admin", ADMIN)):
        users.create(site.database, site.settings, name, is_admin=name == "admin")
        with site.database.writing() as connection:
            connection.execute("UPDATE users SET uuid = ? WHERE username = ?", (uuid, name))
    tokens = {
        uuid: users.new_token(site.database, site.settings, name, None)
        for name, uuid in (("alice", ALICE), ("bob", BOB), ("admin", ADMIN))
    }
    found = Seeds(site, tokens)
    monkeypatch.setattr(Settings, "new_uuid", lambda _settings, infix: found.new_uuid(infix))
    found.make("groups", {"group_class": "project", "name": "uses"}, PROJECT)
    for image in IMAGES:
        in_project = image[3] == PROJECT
        found.image(*image, links=("zzzzz-o0j2j-i4gc1yilydllr4w", "") if in_project else ("", ""))
    empty = "d41d8cd98f00b204e9800998ecf8427e+0"
    found.file("usage/bad:1", "bb6ba97834ba614b55667821288a0004+57", f". {empty} 0:0:a 0:0:b\n")
    found.file("usage/old:1", "23c87ca0141737db458734d71a8ed79b+114", f". {empty} 0:0:{'f' * 64}.tar\n")
    found.make("links", {"link_class": "tag", "name": "alice's own"}, "zzzzz-o0j2j-gl9j3e0vwq7gmgn")
    head = {"head_uuid": "zzzzz-4zz18-3nv3r6avt8g2oag"}
    found.make(
        "links", {"link_class": "docker_image_repo+tag", "name": "bobs/p:1", **TIMESTAMP} | head, BOBS_LINK, ADMIN
    )
    found.sql("UPDATE links SET owner_uuid = ?, modified_by_user_uuid = ? WHERE uuid = ?", BOB, BOB, BOBS_LINK)
    old = {"tail_uuid": "23c87ca0141737db458734d71a8ed79b+114", "head_uuid": IMAGES[0][1]}
    found.make("links", {"link_class": "docker_image_migration"} | old, "zzzzz-o0j2j-eqj1avjv2qz139s")
    yield found
    site.close()


def between(seeds: Seeds, replay: Replay) -> dict[int, Callable[[], None]]:
    """What was done between the recorded requests."""
    usual = recording(105)["request"]["body"]["container_request"]

    def shared() -> None:
        link = {"link_class": "permission", "name": "can_read", "tail_uuid": BOB, "head_uuid": PROJECT}
        seeds.make("links", link)

    def image_x() -> None:
        links = ("zzzzz-o0j2j-c3ielqcgdvbql55", "zzzzz-o0j2j-ybtdasxes4prepb")
        seeds.image(*IMAGE_X, links=links)

    def signed_block() -> None:
        (theirs,) = SIGNATURE.findall(recording(274)["request"]["body"]["manifest_text"])
        settings = seeds.api.site.settings
        locator = settings.signer.sign("d3ea6ec95bb6da9669cf5151e3cfcec7", seeds.tokens[ALICE], 0x7FFFFFFF)
        replay.ours[theirs] = locator[32:]

    def two_requests() -> None:
        for number, name, changes in (
            (0, "inP2", {"priority": 1}),
            (1, "inP3", {"priority": 0, "container_image": IMAGES[2][1], "state": "Uncommitted", "use_existing": True}),
        ):
            item = recording(305)["response"]["body"]["items"][number]
            seeds.plan(item)
            body = usual | {"name": name} | changes
            seeds.api.ok("POST", "container_requests", body, token=seeds.tokens[ALICE])

    return {145: shared, 235: image_x, 274: signed_block, 305: two_requests}


def test_the_site_answers_as_a_real_server_did(seeds: Seeds, capsys: pytest.CaptureFixture[str]) -> None:
    tokens = {"alice": seeds.tokens[ALICE], "bob": seeds.tokens[BOB], "admin": seeds.tokens[ADMIN]}
    found = set()
    numbers = [number for number in range(81, 328) if number not in OUTSIDE]
    with LocalSite(seeds.api.site.folder.root) as running:
        replay = Replay(Web(int(running.url.rpartition(":")[2]), seeds.tokens[ALICE], running.folder), tokens)
        doings = between(seeds, replay)
        for number in numbers:
            doings.get(number, lambda: None)()
            exchange = recording(number)
            seeds.plan(exchange["response"]["body"])
            reply = replay.send(exchange["request"])
            found |= {(number, place) for place in replay.differences(exchange["response"], reply)}
    # Errors have one shape, whichever part of a real server answers.
    found = {(number, place) for number, place in found if place != "error_token"}
    with capsys.disabled():
        sys.stdout.write(f"\n  {len(numbers)} recorded exchanges, {len(found)} differences, each of them listed\n")
    assert found ^ DIFFERENCES == set()
