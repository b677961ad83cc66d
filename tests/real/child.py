# SPDX-License-Identifier: Apache-2.0
"""What a forked process of the kill tests does; imports ahead what an ingest needs, so that a fork starts at once."""

import os

import arvados  # noqa: F401 - imported ahead
import ciso8601  # noqa: F401 - imported ahead

from arv_docker.arvados.client import Cluster
from arv_docker.engines.docker import Docker
from arv_docker.ingest.service import Ingest, Options
from arv_docker.local.progress import SilentProgress
from arv_docker.model.reference import parse_name
from arv_docker.store.tarballs import cache_folder


def ingest(url: str, token: str, name: str, environment: dict[str, str]) -> None:
    """Ingest an image of the Docker that the environment names into the cluster at `url`."""
    os.environ.clear()
    os.environ.update(environment)
    Ingest(Cluster.at_url(url, token), Options(cache_folder()), SilentProgress()).from_engine(
        Docker(), parse_name(name)
    )
