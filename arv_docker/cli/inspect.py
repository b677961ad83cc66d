# SPDX-License-Identifier: Apache-2.0
"""``arv-docker inspect``: what an image in Keep, or at another place, consists of."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .. import cli, progress
from ..errors import UsageError
from ..progress import printable, size

if TYPE_CHECKING:
    from ..image import Descriptor, Digest
    from ..keep.client import Cluster
    from ..keep.stored import StoredImage


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.epilog = (
        "Of an image that is not in Keep the config and the structure are read, and of its layers nothing, unless\n"
        "it is piped in.\n\n"
        "examples:\n"
        "  arv-docker inspect --local busybox:latest\n"
        "  arv-docker inspect docker-archive:busybox.tar\n"
        "  arv-docker inspect --json oci:layout:latest\n"
    )
    parser.add_argument(
        "name",
        metavar="NAME|UUID|PDH|SOURCE",
        help="an image's name or ID, or a collection's UUID or PDH; or a source, as docker-archive:FILE[:NAME]",
    )
    parser.add_argument(
        "--platform", metavar="OS/ARCHITECTURE", help="of a source with several platforms: which one (this machine's)"
    )
    cli.add_cluster_options(parser)
    cli.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Reads config and structure of the image, not its layers, and prints them."""
    from ..transports import names

    if names.split(args.name)[0] is not None:
        document = _document_of_source(args)
    elif args.platform is not None:
        raise UsageError("--platform chooses among the images of a source; what is in Keep is one image.")
    else:
        document = _document_of_stored(args)
    if args.json:
        cli.print_json(document)
    else:
        print(_text(document))
    return 0


def _document_of_source(args: argparse.Namespace) -> dict[str, object]:
    from ..archive.stream import StreamedImage
    from ..manifest import parse_platform
    from ..transports import names

    shown = progress.on()
    platform = parse_platform(args.platform) if args.platform else None
    with names.source(args.name, names.Choice(platform, progress=shown)).open() as image:
        if isinstance(image, StreamedImage):
            with shown.step("reading", None) as advance:
                for layer in image.layers():
                    while content := layer.read():
                        advance(len(content))
        config = image.config
        compressed: Mapping[Digest, Descriptor] = getattr(image, "compressed", {})
        document: dict[str, object] = {
            "source": args.name,
            "image_id": str(config.digest),
            "platform": str(config.platform),
            "created": config.created,
            "tags": list(getattr(image, "tags", ())),
            "digests": [str(digest) for digest in getattr(image, "digests", ())],
            "layers": [{"diff_id": str(it), **_stored(compressed.get(it))} for it in config.diff_ids],
        }
    return document


def _stored(compressed: Descriptor | None) -> dict[str, object]:
    """A layer as the source has it, where that is compressed."""
    return {"compressed": str(compressed.digest), "size": compressed.size} if compressed else {}


def _document_of_stored(args: argparse.Namespace) -> dict[str, object]:
    from ..keep import catalogue
    from ..keep.stored import StoredImage

    with cli.cluster(args) as cluster:
        return _document(cluster, StoredImage(cluster, catalogue.resolve(cluster, args.name).collection))


def _document(cluster: Cluster, image: StoredImage) -> dict[str, object]:
    from ..keep import catalogue
    from ..keep.manifest import locators

    pdh = image.collection.pdh
    copies = sorted(cluster.collections([["portable_data_hash", "=", pdh]]), key=lambda copy: copy.created_at)
    names = catalogue.names_of(cluster, [copy.uuid for copy in copies])
    return {
        "image_id": str(image.config.digest),
        "manifest_digest": str(image.layout.manifest_digest),
        "file": f"{image.file.image_id}.tar",
        "platform": str(image.config.platform),
        "created": image.config.created,
        "canonical": image.canonical is not None,
        "size": image.file.size,
        "pdh": pdh,
        "layers": [
            {"diff_id": str(diff_id), "size": image.archived.sizes[diff_id]} for diff_id in image.config.diff_ids
        ],
        "blocks": [locator.stripped for locator in locators(image.file.streams)],
        "collections": [{"uuid": copy.uuid, "owner_uuid": copy.owner_uuid, "name": copy.name} for copy in copies],
        "links": [
            {
                "uuid": link.uuid,
                "link_class": link.link_class,
                "name": link.name,
                "head_uuid": link.head_uuid,
                "linked_by": link.modified_by,
                "created_at": link.created_at,
            }
            for link in names
        ],
    }


def _text(document: dict[str, object]) -> str:
    """The document as lines: single values first, then each list with its number of entries."""
    lines = []
    for key, value in document.items():
        label = key.replace("_", " ")
        if not isinstance(value, list):
            shown = f"{size(value)} ({value} bytes)" if key == "size" and isinstance(value, int) else value
            lines.append(f"{label + ':':17}{shown}")
            continue
        lines.append(f"{label + ':':17}{len(value)}")
        lines.extend(f"  {_entry(item)}" for item in value)
    return printable("\n".join(lines))


def _entry(item: object) -> str:
    if not isinstance(item, dict):
        return str(item)
    return "  ".join(size(value) if key == "size" else str(value) for key, value in item.items())
