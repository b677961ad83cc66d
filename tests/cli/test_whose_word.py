# SPDX-License-Identifier: Apache-2.0
"""Another user of a site publishes false links of each kind; every verb against each kind.

No verb writes a link of ours to his content, prints a line that he forged, or hands out his image for an ID of ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import arvados
import pytest

import arv_docker
from arv_docker import cli
from arv_docker.arvados.catalog.link_classes import DIGEST, HASH, REPO_TAG
from arv_docker.arvados.client import Cluster
from arv_docker.ingest.service import Ingest, Options
from arv_docker.local.progress import SilentProgress
from arv_docker.model import manifest_text
from arv_docker.model.reference import Reference
from arv_docker.site import LocalSite
from arv_docker.site.api import users
from arv_docker.site.folder import open_site

from ..archives import Image, classic, files_of, image
from ..registry.conftest import registry
from ..registry.scripted import Registry
from ..transports.fake_engine import FakeEngine
from .conftest import Outcome, Run

__all__ = ["registry"]

OURS = image(files_of(b"ours"), os="linux", created="2024-01-02T03:04:05Z")
HIS = image(files_of(b"his"), os="linux", created="2024-01-02T03:04:05Z")
ID, HIS_ID = str(OURS.parsed.digest), str(HIS.parsed.digest)
LATER = {"image_timestamp": "2031-01-01T00:00:00Z"}
FORGED = "x:1\nours  latest  forged  line"


@dataclass
class Setting:
    """A site with our image as ours:1, and the other user's, who has a project that everybody reads."""

    folder: Path
    me: str
    his: str
    head: dict[str, Any]
    his_head: dict[str, Any]
    api: Any
    his_api: Any
    project: str

    def publish(self, link_class: str, name: str, head: str) -> None:
        """A link of his."""
        body = {"link_class": link_class, "name": name, "head_uuid": head, "owner_uuid": self.project}
        pdh = self.his_api.collections().get(uuid=head).execute()["portable_data_hash"]
        self.his_api.links().create(body=body | {"tail_uuid": pdh, "properties": LATER}).execute()

    def plant(self) -> str:
        """His image in a file that is named by our image's ID."""
        text = self.his_api.collections().get(uuid=self.his_head["uuid"]).execute()["manifest_text"].split()
        size = sum(int(token.split("+")[1]) for token in text[1:-1])
        body = {"manifest_text": manifest_text.single_file(f"{ID}.tar", size, text[1:-1]), "owner_uuid": self.project}
        return str(self.his_api.collections().create(body=body).execute()["uuid"])

    def links_of_ours_to_his_content(self) -> list[str]:
        """What must stay empty: our links whose head, or the content that they pin, is his."""
        his = {it["uuid"]: it["portable_data_hash"] for it in self._all("collections") if it["owner_uuid"] != self.me}
        return [
            it["uuid"]
            for it in self._all("links")
            if it["link_class"].startswith("docker_")
            and it["modified_by_user_uuid"] == self.me
            and (it["head_uuid"] in his or it["tail_uuid"] in his.values())
        ]

    def _all(self, resource: str) -> list[dict[str, Any]]:
        return list(getattr(self.api, resource)().list(limit=1000).execute()["items"])


def ingested(api: Any, made: Image, folder: Path, name: str, project: str | None = None) -> dict[str, Any]:
    """The collection of an image that a user put into Keep."""
    (folder / "image.tar").write_bytes(classic(made))
    ingest = Ingest(Cluster(api), Options(folder, project=project), SilentProgress())
    uuid = ingest.from_archive(folder / "image.tar", Reference.parse(name)).uuid
    return dict(api.collections().get(uuid=uuid).execute())


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Setting]:
    monkeypatch.setattr(cli, "engine", lambda args: FakeEngine())
    folder = tmp_path / "site"
    site = open_site(folder)
    users.create(site.database, site.settings, "me", is_admin=False)
    users.create(site.database, site.settings, "mallory", is_admin=False)
    tokens = [users.new_token(site.database, site.settings, name, None) for name in ("me", "mallory")]
    site.close()
    with LocalSite(folder) as running:
        api, his_api = (
            arvados.api("v1", discoveryServiceUrl=running.discovery_url, token=token, cache=False) for token in tokens
        )
        me, his = (it.users().current().execute()["uuid"] for it in (api, his_api))
        project = his_api.groups().create(body={"group_class": "project", "name": "free"}).execute()["uuid"]
        permission = {"link_class": "permission", "name": "can_read", "head_uuid": project}
        his_api.links().create(body=permission | {"tail_uuid": f"{project[:5]}-j7d0g-fffffffffffffff"}).execute()
        head = ingested(api, OURS, tmp_path, "ours:1")
        his_head = ingested(his_api, HIS, tmp_path, "his:1", project)
        monkeypatch.setattr(cli, "cluster", lambda args: _as(api))
        yield Setting(folder, me, his, head, his_head, api, his_api, project)


class _as:
    def __init__(self, api: Any) -> None:
        self._cluster = Cluster(api, retries=0)

    def __enter__(self) -> Cluster:
        return self._cluster

    def __exit__(self, *_: object) -> None:
        pass


Lie = Callable[[Setting], None]

#: The kinds of false links. By the first three our ID is meant, by the others a name.
LIES: dict[str, Lie] = {
    "our ID to his image": lambda it: it.publish(HASH, ID, it.his_head["uuid"]),
    "our ID to a file named by it": lambda it: it.publish(HASH, ID, it.plant()),
    "our ID as a further digest of his": lambda it: it.publish(DIGEST, ID, it.his_head["uuid"]),
    "our ID as a name": lambda it: it.publish(REPO_TAG, f"{ID[7:19]}:latest", it.his_head["uuid"]),
    "our ID in a name": lambda it: it.publish(REPO_TAG, f"ours@{ID}", it.his_head["uuid"]),
    "a line of a table": lambda it: it.publish(REPO_TAG, FORGED, it.his_head["uuid"]),
}


def verbs(text: str, target: str, tmp: Path) -> dict[str, tuple[str, ...]]:
    """Every verb that takes an image of a cluster."""
    return {
        "resolve": ("resolve", text),
        "resolve --explain": ("resolve", "--explain", text),
        "inspect": ("inspect", "--json", text),
        "verify": ("verify", text),
        "images": ("images",),
        "images NAME": ("images", text),
        "load": ("load", text),
        "stage": ("stage", "--from", "keep", "--dir", str(tmp / "staged"), text),
        "link": ("link", text, "linked:1"),
        "tag": ("tag", text, "tagged:1"),
        "copy": ("copy", f"keep:{text}", f"docker-archive:{tmp / 'out.tar'}"),
        "registry push": ("registry", "push", "--insecure", target, f"keep:{text}"),
        "arv-keepdocker": ("arv-keepdocker", text),
        "arv-keepdocker images": ("arv-keepdocker", "images"),
    }


@pytest.mark.parametrize("lie", LIES)
def test_no_verb_takes_his_image_for_an_id_of_ours(
    setting: Setting, run: Run, registry: Registry, tmp_path: Path, lie: str
) -> None:
    LIES[lie](setting)
    for text in (ID, ID[7:19], f"ours@{ID}"):
        for verb, words in verbs(text, registry.host, tmp_path / text[:9]).items():
            (tmp_path / text[:9]).mkdir(exist_ok=True)
            outcome = run(*words)
            if "images" not in verb:
                assert outcome.code == 0, (verb, text, outcome)
                assert HIS_ID not in outcome.out, (verb, text, outcome)
                assert setting.his_head["uuid"] not in outcome.out, (verb, text, outcome)
                assert setting.his_head["portable_data_hash"] not in outcome.out, (verb, text, outcome)
            assert "\nours  latest  forged" not in outcome.out + outcome.err, (verb, text)
        record = arv_docker.get_image(setting.api, text)
        assert (record.uuid, str(record.image_id), record.trusted) == (setting.head["uuid"], ID, True)
    assert setting.links_of_ours_to_his_content() == []


def test_what_is_false_is_said(setting: Setting, run: Run) -> None:
    LIES["our ID to his image"](setting)
    for words in (("images",), ("resolve", "--explain", ID)):
        assert f"of {setting.his} is false: it calls {setting.his_head['uuid']}" in run(*words).err
    assert {it["image_id"] for it in json.loads(run("images", "--json").out)} == {ID, HIS_ID}
    assert json.loads(run("resolve", "--json", ID).out)["false_links"][0]["linked_by"] == setting.his


def refused(outcome: Outcome, setting: Setting) -> bool:
    return outcome.code == 8 and setting.his in outcome.err


def test_a_name_of_his_is_read_with_a_warning_and_never_made_ours_unasked(
    setting: Setting, run: Run, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = verbs("his:1", registry.host, tmp_path)
    for verb in ("resolve", "inspect", "verify", "load", "stage", "arv-keepdocker"):
        outcome = run(*every[verb])
        assert (outcome.code, setting.his in outcome.err) == (0, True), (verb, outcome)
    record = arv_docker.get_image(setting.api, "his:1")
    assert (record.uuid, record.trusted, record.linked_by) == (setting.his_head["uuid"], False, setting.his)
    for verb in ("link", "tag", "copy", "registry push"):
        assert refused(run(*every[verb]), setting), verb
    assert setting.links_of_ours_to_his_content() == []
    monkeypatch.setenv("ARV_DOCKER_NAMES", "trusted")
    for verb in ("resolve", "inspect", "verify", "load", "arv-keepdocker"):
        assert run(*every[verb]).code == 1, verb
    monkeypatch.delenv("ARV_DOCKER_NAMES")
    monkeypatch.setenv("ARV_DOCKER_TRUSTED_WRITERS", setting.his)
    for verb in ("link", "copy", "registry push"):
        assert run(*every[verb]).code == 0, verb
