# SPDX-License-Identifier: Apache-2.0
"""Checks before an image is read, for reasons that make storing it useless."""

from __future__ import annotations

import logging

from ..arvados.client import Cluster
from ..errors import ArvDockerError, UsageError
from ..local.progress import Progress
from .options import Options

log = logging.getLogger(__name__)

#: Characters that the name of a collection may have.
MAX_NAME = 255


class Preflight:
    """Checks of one cluster, asked once however many images follow."""

    def __init__(self, cluster: Cluster, options: Options, progress: Progress) -> None:
        self._cluster = cluster
        self._options = options
        self._progress = progress
        self._passed = False

    def check(self) -> None:
        """Raise ClusterError or ArvDockerError for a project that may not be written, and for a cluster that does not
        take version 2 images, as arv-keepdocker refuses it (docs/conformance.md#k7)."""
        if self._passed:
            return
        self._check_name()
        owner = self._options.project or self._cluster.user_uuid  # asks whose token it is
        log.debug("%s is to own what is written", owner)
        if self._options.project:
            self._cluster.check_writable(self._options.project)
        self._check_format()
        self._passed = True

    def check_creation(self) -> None:
        """Raise what ``check`` raises, and ClusterError for a token that may not create collections and links: asked
        before an image is read."""
        self.check()
        self._cluster.check_creatable("collections", "links")

    def _check_name(self) -> None:
        """Raise UsageError for a name that no collection can have."""
        name = self._options.name or ""
        if len(name) > MAX_NAME or "/" in name or name in (".", ".."):
            raise UsageError(
                f"--name: no collection can be called {name[:40]!r}: at most {MAX_NAME} characters, no slash, "
                f"and not . or .. (these are {len(name)} characters)."
            )

    def _check_format(self) -> None:
        formats = self._cluster.image_formats
        log.debug("the cluster accepts images of the formats %s", ", ".join(formats) or "that it does not name")
        if "v2" in formats:
            return
        says = f"it accepts {', '.join(formats)}" if formats else "it does not say which formats it accepts"
        message = f"the cluster does not accept images of format v2: {says}"
        if not self._options.force_image_format:
            raise ArvDockerError(f"{message}. Give --force-image-format to store the image all the same.")
        self._progress.warn(message)
