# SPDX-License-Identifier: Apache-2.0
"""Images of version 1 that were migrated, on a site: what a container would run, and what its users are told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import arvados
import pytest

from arv_docker.arvados.catalog.link_classes import MIGRATION, REPO_TAG
from arv_docker.arvados.catalog.resolver import resolve
from arv_docker.arvados.client import Cluster
from arv_docker.arvados.trust import Trust
from arv_docker.errors import NotAnImage
from arv_docker.model import manifest_text
from arv_docker.site import LocalSite
from arv_docker.site.api import users
from arv_docker.site.folder import open_site

OLD, NEW, NEWER = "a" * 64, f"sha256:{'b' * 64}", f"sha256:{'c' * 64}"


@dataclass(frozen=True)
class Setting:
    """A site on which this user has app:1, of version 1; ``system`` is the server itself."""

    api: Any
    system: Any
    old: str

    def image(self, name: str) -> str:
        """The PDH of a collection that holds an image's file."""
        text = manifest_text.single_file(f"{name}.tar", 0, ["d41d8cd98f00b204e9800998ecf8427e+0"])
        return str(self.api.collections().create(body={"manifest_text": text}).execute()["portable_data_hash"])

    def migrate(self, head: str, api: Any) -> None:
        body = {"link_class": MIGRATION, "name": "migrate_1.9_1.10", "tail_uuid": self.old, "head_uuid": head}
        api.links().create(body=body).execute()

    def container_image(self) -> str:
        """The PDH that a container of this user would run by the name app:1."""
        body = {
            "command": ["true"],
            "container_image": "app:1",
            "output_path": "/out",
            "cwd": "/",
            "mounts": {"/out": {"kind": "tmp", "capacity": 1}},
            "runtime_constraints": {"ram": 1, "vcpus": 1},
            "state": "Committed",
            "priority": 1,
        }
        request = self.api.container_requests().create(body=body).execute()
        return str(self.api.containers().get(uuid=request["container_uuid"]).execute()["container_image"])


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    site = open_site(tmp_path)
    token = users.new_token(site.database, site.settings, "system", None)
    site.close()
    with LocalSite(tmp_path) as running:
        api, system = (
            arvados.api("v1", discoveryServiceUrl=running.discovery_url, token=it, cache=False)
            for it in (running.token, token)
        )
        text = manifest_text.single_file(f"{OLD}.tar", 0, ["d41d8cd98f00b204e9800998ecf8427e+0"])
        old = api.collections().create(body={"manifest_text": text}).execute()
        api.links().create(body={"link_class": REPO_TAG, "name": "app:1", "head_uuid": old["uuid"]}).execute()
        yield Setting(api, system, old["portable_data_hash"])


def resolved(api: Any) -> str:
    cluster = Cluster(api, retries=0)
    return resolve(cluster, "app:1", Trust.of(cluster.user_uuid, cluster.system_user_uuid)).collection.pdh


def test_an_administrator_is_told_what_runs(setting: Setting) -> None:
    setting.migrate(setting.image(NEW), setting.system)
    newer = setting.image(NEWER)
    setting.migrate(newer, setting.system)
    assert setting.container_image() == resolved(setting.system) == newer


def test_others_are_told_whom_to_ask(setting: Setting) -> None:
    """The server runs it, by a link that it does not show them."""
    new = setting.image(NEW)
    setting.migrate(new, setting.system)
    assert setting.container_image() == new
    with pytest.raises(NotAnImage, match="If an administrator migrated one of them"):
        resolved(setting.api)


def test_a_migration_of_a_user_s_own_is_none(setting: Setting) -> None:
    setting.migrate(setting.image(NEW), setting.api)
    for api in (setting.api, setting.system):
        with pytest.raises(NotAnImage):
            resolved(api)
