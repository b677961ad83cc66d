# SPDX-License-Identifier: Apache-2.0
"""Another user of a site, whose word nobody has to take. No fixtures: see `conftest.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import arvados

from arv_docker.arvados.client import Cluster, CollectionRecord
from arv_docker.engines.docker import Docker as Engine
from arv_docker.ingest.service import Ingest, Options
from arv_docker.local.progress import SilentProgress
from arv_docker.model.reference import parse_name
from arv_docker.site import LocalSite
from arv_docker.store.tarballs import cache_folder

from .engines import Image
from .sites import Site, command, finished, started

LATER = "2031-01-01T00:00:00Z"


@dataclass
class Stranger:
    """Another user of the site, with a project that everybody reads."""

    site: Site
    token: str
    project: str = ""

    @classmethod
    def on(cls, site: Site) -> Stranger:
        """A user called mallory, new on the site."""
        site.make()
        for words in (("user", "create", "mallory"), ("user", "token", "mallory")):
            done = finished(started(command("site", *words, "--dir", site.folder)))
            assert done.status == 0, done.told
        made = cls(site, done.out.strip())
        made.project = made.does(_shared_project)
        return made

    def does(self, deed: Callable[[Stranger, Cluster], Any]) -> Any:
        """Something, with the stranger's token; gives what it gives."""
        with LocalSite(self.site.folder) as running:
            return deed(self, Cluster(arvados.api("v1", discoveryServiceUrl=running.discovery_url, token=self.token)))

    def publish(self, cluster: Cluster, head: CollectionRecord, link_class: str, name: str, made: str = LATER) -> None:
        """A link that pins the collection's content, as this package writes them."""
        cluster.create_link(
            {
                "link_class": link_class,
                "name": name,
                "head_uuid": head.uuid,
                "tail_uuid": head.pdh,
                "owner_uuid": self.project,
                "properties": {"image_timestamp": made},
            }
        )

    def ingests(self, cluster: Cluster, image: Image) -> CollectionRecord:
        """The image as it is, without links."""
        stored = Ingest(cluster, Options(cache_folder(), project=self.project), SilentProgress()).from_engine(
            Engine(), parse_name(image.reference)
        )
        for link in list(cluster.links([["head_uuid", "=", stored.uuid]])):
            cluster.delete_link(link.uuid)
        return cluster.collection(stored.uuid)


def _shared_project(_: Stranger, cluster: Cluster) -> str:
    api = cluster._api
    project = str(api.groups().create(body={"group_class": "project", "name": "free images"}).execute()["uuid"])
    everybody = f"{project[:5]}-j7d0g-fffffffffffffff"
    permission = {"link_class": "permission", "name": "can_read", "tail_uuid": everybody, "head_uuid": project}
    api.links().create(body=permission).execute()
    return project
