# SPDX-License-Identifier: Apache-2.0
"""``arv-docker inspect``: what an image in Keep consists of."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .. import cli
from ..progress import printable, size

if TYPE_CHECKING:
    from ..keep.client import Cluster
    from ..keep.stored import StoredImage


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.epilog = "example:\n  arv-docker inspect --local busybox:latest"
    parser.add_argument("name", metavar="NAME|UUID|PDH", help="an image's name or ID, or a collection's UUID or PDH")
    cli.add_cluster_options(parser)
    cli.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Reads config and structure of the image, not its layers, and prints them."""
    from ..keep import catalogue
    from ..keep.stored import StoredImage

    with cli.cluster(args) as cluster:
        image = StoredImage(cluster, catalogue.resolve(cluster, args.name).collection)
        document = _document(cluster, image)
    if args.json:
        cli.print_json(document)
    else:
        print(_text(document))
    return 0


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
