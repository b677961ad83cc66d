# SPDX-License-Identifier: Apache-2.0
"""An image ID is proven by the name of its file and by its bytes, whatever links say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from arv_docker.archive import canonical
from arv_docker.arvados.catalog.link_classes import DIGEST, HASH, REPO_TAG
from arv_docker.arvados.catalog.listing import list_images
from arv_docker.arvados.catalog.resolver import check_trusted, resolve
from arv_docker.arvados.trust import Trust
from arv_docker.errors import NoSuchImage, UntrustedName
from arv_docker.ingest.service import Ingest, Options
from arv_docker.local.progress import SilentProgress
from arv_docker.model import manifest_text
from arv_docker.model.reference import Reference

from ...archives import Image, classic, files_of, image
from ..fake_api import ME, OTHER, SYSTEM, FakeApi, cluster

TRUST = Trust.of(ME, SYSTEM)
LATER = {"image_timestamp": "2031-01-01T00:00:00Z"}
OURS = image(files_of(b"ours"), os="linux", created="2024-01-02T03:04:05Z")
THEIRS = image(files_of(b"theirs"), os="linux", created="2024-01-02T03:04:05Z")
ID = str(OURS.parsed.digest)
MANIFEST = str(canonical.layout(OURS.parsed, OURS.sizes).manifest_digest)


def stored(api: FakeApi, made: Image, folder: Path, name: str = "app:1") -> dict[str, Any]:
    """The collection of an image that was ingested, with its links."""
    (folder / "image.tar").write_bytes(classic(made))
    done = Ingest(cluster(api), Options(folder), SilentProgress()).from_archive(
        folder / "image.tar", Reference.parse(name)
    )
    return api.records["collections"][done.uuid]


@pytest.fixture
def api(tmp_path: Path) -> FakeApi:
    """A cluster with our image as app:1, and a stranger's as theirs:1."""
    api = FakeApi()
    stored(api, OURS, tmp_path)
    api.user = OTHER
    stored(api, THEIRS, tmp_path, "theirs:1")
    api.user = ME
    return api


def head_of(api: FakeApi, name: str) -> dict[str, Any]:
    (link,) = [it for it in api.records["links"].values() if it["name"] == name and it["link_class"] == REPO_TAG]
    return api.records["collections"][link["head_uuid"]]


def lie(api: FakeApi, link_class: str, name: str, head: dict[str, Any]) -> dict[str, Any]:
    pinned = {"tail_uuid": head["portable_data_hash"], "properties": LATER}
    return api.link(head, link_class, name, modified_by_user_uuid=OTHER, **pinned)


def forget(api: FakeApi, *names: str) -> None:
    """Nobody has links of these names any more."""
    for link in api.records["links"].values():
        if link["name"] in names:
            link["name"] = "gone"


def planted(api: FakeApi, image_id: str) -> dict[str, Any]:
    """The stranger's image in a file that is named by an ID which is not its own."""
    text = head_of(api, "theirs:1")["manifest_text"]
    named = manifest_text.single_file(
        f"{image_id}.tar",
        sum(int(it.split("+")[1]) for it in text.split()[1:-1]),
        text.split()[1:-1],
    )
    return api.add("collections", manifest_text=named, owner_uuid=OTHER, modified_by_user_uuid=OTHER)


SPELLINGS = [ID, ID.removeprefix("sha256:"), ID[:19], ID[7:19], f"app@{ID}", f"app:9@{ID}"]


@pytest.mark.parametrize("text", SPELLINGS)
@pytest.mark.parametrize("file", ["their own", "planted"])
def test_a_false_link_beside_a_true_one_changes_nothing(api: FakeApi, text: str, file: str) -> None:
    before = resolve(cluster(api), text, TRUST)
    head = planted(api, ID) if file == "planted" else head_of(api, "theirs:1")
    for link_class, name in ((HASH, ID), (DIGEST, ID), (REPO_TAG, f"app@{ID}"), (REPO_TAG, f"{ID[7:19]}:latest")):
        lie(api, link_class, name, head)
    after = resolve(cluster(api), text, TRUST)
    assert (after.collection.uuid, after.link) == (before.collection.uuid, before.link)
    assert after.warnings == before.warnings == ()
    assert after.untrusted_writer is None


@pytest.mark.parametrize("text", SPELLINGS[:-2])
@pytest.mark.parametrize("file", ["their own", "planted"])
def test_a_false_link_alone_leads_nowhere(api: FakeApi, text: str, file: str) -> None:
    forget(api, ID)
    liar = lie(api, HASH, ID, planted(api, ID) if file == "planted" else head_of(api, "theirs:1"))
    lie(api, DIGEST, ID, head_of(api, "theirs:1"))
    with pytest.raises(NoSuchImage) as caught:
        resolve(cluster(api), text, TRUST)
    assert f"link {liar['uuid']} of {OTHER} is false" in caught.value.detail


def test_an_id_of_a_stranger_s_image_is_proven_by_its_bytes(api: FakeApi) -> None:
    found = resolve(cluster(api), str(THEIRS.parsed.digest), TRUST)
    assert found.collection.uuid == head_of(api, "theirs:1")["uuid"]
    assert found.untrusted_writer == OTHER
    check_trusted(str(THEIRS.parsed.digest), found)  # an ID says what is meant; only a name is somebody's word


def test_a_further_digest_is_proven_by_the_bytes_or_by_a_trusted_user(api: FakeApi) -> None:
    """The digest of our image's manifest, which the archive has; and that of a registry, which nothing shows."""
    forget(api, ID, MANIFEST)
    elsewhere = f"sha256:{'e' * 64}"
    for name in (MANIFEST, elsewhere):
        lie(api, DIGEST, name, head_of(api, "app:1"))
        lie(api, DIGEST, name, head_of(api, "theirs:1"))
    assert resolve(cluster(api), MANIFEST, TRUST).collection.uuid == head_of(api, "app:1")["uuid"]
    with pytest.raises(NoSuchImage):
        resolve(cluster(api), elsewhere, TRUST)


def test_a_false_id_does_not_hide_a_true_further_digest(api: FakeApi) -> None:
    index = f"sha256:{'d' * 64}"
    head = head_of(api, "app:1")
    api.link(head, DIGEST, index, tail_uuid=head["portable_data_hash"])
    lie(api, HASH, index, head_of(api, "theirs:1"))
    lie(api, HASH, index, planted(api, index))
    assert resolve(cluster(api), index, TRUST).collection.uuid == head["uuid"]


@pytest.mark.parametrize("text", [f"app@sha256:{'e' * 64}", f"app@{ID}"])
def test_a_stranger_s_name_with_a_digest_that_nothing_proves_is_not_believed(api: FakeApi, text: str) -> None:
    forget(api, ID)
    lie(api, REPO_TAG, text, head_of(api, "theirs:1"))
    with pytest.raises(NoSuchImage):
        resolve(cluster(api), text, TRUST)
    lie(api, REPO_TAG, f"app@{THEIRS.parsed.digest}", head_of(api, "theirs:1"))
    assert resolve(cluster(api), f"app@{THEIRS.parsed.digest}", TRUST).untrusted_writer == OTHER


def test_a_name_follows_the_cluster_with_a_warning_or_trusted_users_alone(api: FakeApi) -> None:
    ours, theirs = head_of(api, "app:1")["uuid"], head_of(api, "theirs:1")
    lie(api, REPO_TAG, "app:1", theirs)
    found = resolve(cluster(api), "app:1", TRUST)
    assert (found.collection.uuid, found.untrusted_writer) == (theirs["uuid"], OTHER)
    assert OTHER in " ".join(found.warnings)
    with pytest.raises(UntrustedName, match=OTHER):
        check_trusted("app:1", found)
    strict = Trust.of(ME, SYSTEM, names_too=True)
    assert resolve(cluster(api), "app:1", strict).collection.uuid == ours
    check_trusted("app:1", resolve(cluster(api), "app:1", strict))
    check_trusted("app:1", resolve(cluster(api), "app:1", Trust.of(ME, SYSTEM, [OTHER])))
    check_trusted("app:1", resolve(cluster(api), "app:1", Trust.of(ME, SYSTEM, readable=True)))


def test_the_listing_shows_the_ids_of_files_and_leaves_false_links_out(api: FakeApi) -> None:
    theirs = head_of(api, "theirs:1")
    liar = lie(api, HASH, ID, theirs)
    lie(api, DIGEST, f"sha256:{'e' * 64}", theirs)
    found = list_images(cluster(api), TRUST)
    assert {(row.collection.uuid, row.image_id) for row in found.rows} == {
        (head_of(api, "app:1")["uuid"], ID),
        (theirs["uuid"], str(THEIRS.parsed.digest)),
    }
    assert [link.uuid for link in found.false_links] == [liar["uuid"]]
    assert {row.collection.uuid for row in list_images(cluster(api), TRUST, ID).rows} == {head_of(api, "app:1")["uuid"]}
    assert list_images(cluster(api), TRUST, f"sha256:{'e' * 64}").rows == ()
