# SPDX-License-Identifier: Apache-2.0
"""The files of an image at any source: opened so that they can be listed, or read too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..archive.image_files import ImageFiles, files_of
from ..archive.opened_image import OpenedImage
from ..local.progress import Progress
from ..store.cache import CacheFolder
from ..transports import Source
from ..transports.local import seekable


@contextmanager
def open_files(
    source: Source, progress: Progress, cache: CacheFolder, *, contents: bool = True, whole: bool = False
) -> Iterator[ImageFiles]:
    """The files of an image, as long as the block lasts; without ``contents`` they can be listed alone.

    Those of an engine or a pipe come once: to be read again their layers wait in a file without a name in the
    ``cache``, as they are.
    ``whole``: layers are read to their ends and checked, also where reading their headers would do. Raises what
    opening the image raises, DiskError, and what ``files_of`` raises.
    """
    with source.open() as image:
        if contents and image.streams:
            with seekable(image, cache.path, progress=progress) as spooled:
                yield _index(spooled, progress, whole=whole)
        else:
            yield _index(image, progress, whole=whole)


def _index(image: OpenedImage, progress: Progress, *, whole: bool) -> ImageFiles:
    with progress.step("listing the files of the layers", None) as advance:
        return files_of(image, advance, whole=whole)
