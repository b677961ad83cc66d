# SPDX-License-Identifier: Apache-2.0
"""File names of image archives in a folder: the image, its version, its ID and the format (docs/folder.md)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from ..errors import UsageError

PLAIN, ZIP = "docker", "zip"

_NAME = re.compile(
    r"(?P<image>[^/\x00-\x1f]+)_(?P<version>[^_/\x00-\x1f]+)_(?P<short_id>[0-9a-f]{12})\.(?P<format>[^./\x00-\x1f]+)"
)
_LONGEST_NAME = 255 - len("..partial")  # as it is called until it is whole


@dataclass(frozen=True, slots=True)
class ArchiveName:
    """The parts of a file name: image, version, the first 12 digits of the image ID, and the format.

    >>> ArchiveName("quay.io/tools/bwa_mem", "0.7.17", "0123456789ab").file_name
    'quay.io%2Ftools%2Fbwa_mem_0.7.17_0123456789ab.docker'
    """

    image: str
    version: str
    short_id: str
    format: str = PLAIN

    @classmethod
    def parse(cls, file_name: str) -> ArchiveName | None:
        """Parse ``file_name`` into its parts; None for a name of another form."""
        match = _NAME.fullmatch(file_name)
        if not match or file_name.startswith("."):
            return None
        try:
            image, version = (unquote(match[part], errors="strict") for part in ("image", "version"))
            image.encode()
        except UnicodeError:
            return None
        return cls(image, version, match["short_id"], match["format"])

    @property
    def file_name(self) -> str:
        """The name of the file; whatever else than letters, digits and ``_.-`` an image's name has is percent-encoded.

        Raises UsageError for a version that no such name can hold.
        """
        if not self.image or not self.version or "_" in self.version:
            raise UsageError(
                f"{self.version!r} cannot be the version of an image archive: it is empty, or has an underscore, "
                "which separates the parts of the file's name. Choose another version."
            )
        image = quote(self.image, safe="")
        image = f"%2E{image[1:]}" if image.startswith(".") else image
        name = f"{image}_{quote(self.version, safe='+')}_{self.short_id}.{self.format}"
        if len(name) > _LONGEST_NAME:
            raise UsageError(f"the name of the archive would be longer than {_LONGEST_NAME} characters: {name[:60]}…")
        return name
