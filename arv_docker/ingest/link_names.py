# SPDX-License-Identifier: Apache-2.0
"""Names by which images are linked: the user's name, else the source's. Pure rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..archive import canonical
from ..engines import EngineImage
from ..images.tags import check_digest
from ..model.image import Digest
from ..model.reference import ImageId, Reference, references_in
from ..transports import OpenedImage


def of_engine(name: Reference | ImageId, image: EngineImage) -> Reference | None:
    """The name to link an engine's image by; None where the user gave (the beginning of) its ID."""
    if isinstance(name, ImageId):
        return None
    is_tag = name in references_in(image.tags)
    return None if name.as_id is not None and not is_tag else name


def of_source(image: OpenedImage, name: Reference | ImageId | None, otherwise: Reference | None) -> Reference | None:
    """The name to link an image of a source by; None where the user gave (the beginning of) its ID.

    Where the user gave nothing, the first name that an archive gives it, or else ``otherwise``.
    Raises NotVerified for a name with a digest that the source has not proven to be the image's.
    """
    if isinstance(name, ImageId) or (name and name.as_id is not None and name.as_id.matches(image.config.digest)):
        return None
    link_name = next(iter(archive_names(image)), otherwise) if name is None else name
    if link_name is not None and link_name.digest is not None:
        check_digest(link_name, list(map(str, _proven_digests(image))))
    return link_name


def check_engine_name(name: Reference, image: EngineImage) -> None:
    """Raise NotVerified for a name with a digest by which the engine does not know the image."""
    check_digest(name, [str(image.id), *(str(it.digest) for it in references_in(image.digests) if it.digest)])


def _proven_digests(image: OpenedImage) -> Iterator[Digest]:
    """Yield the digests that an image has by its bytes: of its config, of what describes it there, and, where the
    layers' sizes are known, of its canonical manifest."""
    yield from (image.config.digest, *image.digests)
    if set(image.config.diff_ids) <= set(image.known_sizes):
        yield canonical.layout(image.config, image.known_sizes).manifest_digest


def archive_names(image: OpenedImage) -> tuple[Reference, ...]:
    """Names of an image in its archive; a stream has them at its end."""
    return names_of(image.tags, (image.config.digest, *image.digests))


def names_of(tags: Iterable[str], digests: Sequence[Digest]) -> tuple[Reference, ...]:
    """Names of the image among an archive's tags; none by a digest that is not among its own ``digests``."""
    return tuple(name for name in references_in(tags) if name.digest is None or name.digest in digests)
