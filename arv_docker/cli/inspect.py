# SPDX-License-Identifier: Apache-2.0
"""``arv-docker inspect``: the parts of an image in Keep, or at another place."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import cli
from ..errors import BadSettings, ClusterError, NoCluster, one_line
from ..local.progress import size_text
from ..model.reference import references_in

if TYPE_CHECKING:
    from ..arvados.client import Cluster
    from ..arvados.stored import StoredImage
    from ..arvados.trust import Trust
    from ..model.image import Config, Descriptor


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.epilog = (
        "Of an image that is not in Keep the config and the structure are read, and of its layers nothing, unless\n"
        "it is piped in. Where a cluster is configured, or with --local, it says which other images in Keep have the\n"
        "same layers: a tool that converts images writes the config anew, and so makes another image.\n\n"
        "--platform chooses among several images in Keep by one name, too.\n\n"
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
    cli.add_source_options(parser)
    cli.add_cluster_options(parser)
    cli.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Read config and structure of the image, not its layers, and print them."""
    from ..transports import names

    document = (_document_of_stored if names.split(args.name)[0] in (None, "keep") else _document_of_source)(args)
    if args.json:
        cli.print_json(document)
    else:
        print(_text(document))
    return 0


def _document_of_source(args: argparse.Namespace) -> dict[str, object]:
    from ..transports import names

    shown = cli.progress_for(args)
    with names.source(args.name, cli.choice(args, shown)).open() as image:
        if image.streams:
            with shown.step("reading", None) as advance:
                for layer in image.layers():
                    while content := layer.read():
                        advance(len(content))
        config = image.config
        document: dict[str, object] = {
            "source": args.name,
            "image_id": str(config.digest),
            "platform": str(config.platform),
            "created": config.created,
            **_started_by(config),
            "tags": list(image.tags),
            "digests": [str(digest) for digest in image.digests],
            "layers": [
                {"diff_id": str(it), **_compressed_form(image.compressed_layers.get(it))} for it in config.diff_ids
            ],
        }
        tags = references_in(image.tags)
    from ..arvados.trust import Trust

    try:
        with cli.cluster(args) as cluster:
            document["same_layers"] = _same_layers(
                cluster, config, [name.link_name for name in tags], Trust.from_settings(cluster, cli.settings(args))
            )
    except NoCluster as error:
        if isinstance(error, BadSettings):
            raise
    except ClusterError as error:
        shown.say(f"which images in Keep have the same layers was not found out: {error.message}")
    return document


def _same_layers(cluster: Cluster, config: Config, names: Sequence[str], trust: Trust) -> list[dict[str, object]]:
    """The other images in Keep with the same layers, as far as links of those layers or names lead to them."""
    from ..arvados.catalog.link_classes import REPO_TAG
    from ..arvados.catalog.same_layers import images_with_same_layers
    from ..arvados.dedup import LayerLookup

    layers = LayerLookup(cluster, config.diff_ids, trust)
    named = list(cluster.links([["link_class", "=", REPO_TAG], ["name", "in", list(names)]])) if names else []
    return [cli.as_json(it) for it in images_with_same_layers(cluster, config, layers, named, trust=trust)]


def _compressed_form(compressed: Descriptor | None) -> dict[str, object]:
    """A layer as the source has it, where that is compressed."""
    return {"compressed": str(compressed.digest), "size": compressed.size} if compressed else {}


def _document_of_stored(args: argparse.Namespace) -> dict[str, object]:
    from ..arvados.catalog import platforms, resolver
    from ..arvados.stored import StoredImage
    from ..arvados.trust import Trust
    from ..transports import keep

    shown = cli.progress_for(args)
    place = keep.place_of(args.name) or keep.Place(None, args.name)
    with cli.cluster_named(args, place.cluster) as cluster:
        trust = Trust.from_settings(cluster, cli.settings(args))
        found = resolver.resolve(cluster, place.name, trust)
        if args.platform:
            found = platforms.choose_platform(cluster, found, args.platform, shown)
        for warning in (*found.warnings, *resolver.container_warnings(place.name, found)):
            shown.warn(warning)
        return _document(cluster, StoredImage(cluster, found.collection), trust)


def _document(cluster: Cluster, image: StoredImage, trust: Trust) -> dict[str, object]:
    from ..arvados.catalog import link_query
    from ..arvados.catalog.link_classes import DIGEST, HASH, REPO_TAG
    from ..model.manifest_text import locators

    pdh = image.collection.pdh
    copies = sorted(cluster.collections([["portable_data_hash", "=", pdh]]), key=lambda copy: copy.created_at)
    classes = (REPO_TAG, HASH, DIGEST)
    by_uuid = {copy.uuid: copy for copy in copies}
    names = link_query.links_to(cluster, list(by_uuid), classes)
    return {
        "image_id": str(image.config.digest),
        "manifest_digest": str(image.layout.manifest_digest),
        "file": f"{image.file.image_id}.tar",
        "platform": str(image.config.platform),
        "created": image.config.created,
        **_started_by(image.config),
        "canonical": image.canonical is not None,
        "size": image.file.size,
        "pdh": pdh,
        "layers": [
            {"diff_id": str(diff_id), "size": image.archived.sizes[diff_id]} for diff_id in image.config.diff_ids
        ],
        "blocks": [locator.without_hints for locator in locators(image.file.streams)],
        "collections": [{"uuid": copy.uuid, "owner_uuid": copy.owner_uuid, "name": copy.name} for copy in copies],
        "links": [
            {
                "uuid": link.uuid,
                "link_class": link.link_class,
                "name": link.name,
                "head_uuid": link.head_uuid,
                "linked_by": link.modified_by,
                "trusted": trust.attests(link, by_uuid[link.head_uuid]),
                "created_at": link.created_at,
            }
            for link in names
        ],
        "same_layers": _same_layers(
            cluster, image.config, [link.name for link in names if link.link_class == REPO_TAG], trust
        ),
    }


#: What the config says of containers, by the names of a Dockerfile's instructions.
_INSTRUCTIONS = {
    "entrypoint": "Entrypoint",
    "command": "Cmd",
    "env": "Env",
    "user": "User",
    "working_dir": "WorkingDir",
    "exposed_ports": "ExposedPorts",
    "volumes": "Volumes",
    "labels": "Labels",
}


def _started_by(config: Config) -> dict[str, object]:
    """The start of the image's containers, as far as the config says, and the history of its layers."""
    from ..model.image import json_object

    document = json_object(config.raw, what="the image's config")
    container, history = document.get("config"), document.get("history")
    values = container if isinstance(container, dict) else {}
    found: dict[str, object] = {name: values[key] for name, key in _INSTRUCTIONS.items() if values.get(key)}
    steps = [step for step in history if isinstance(step, dict)] if isinstance(history, list) else []
    lines = [
        {"created_by": str(step.get("created_by") or ""), "empty_layer": bool(step.get("empty_layer"))}
        for step in steps
    ]
    return {"config": found, "history": lines}


def _text(document: dict[str, object]) -> str:
    """The document as lines: single values first, then each list with its number of entries."""
    lines: list[str] = []
    for key, value in document.items():
        label = key.replace("_", " ")
        if isinstance(value, dict):
            lines.extend(f"{name.replace('_', ' ') + ':':17}{_plain(each)}" for name, each in value.items())
            continue
        if not isinstance(value, list):
            shown = f"{size_text(value)} ({value} bytes)" if key == "size" and isinstance(value, int) else value
            lines.append(f"{label + ':':17}{shown}")
            continue
        lines.append(f"{label + ':':17}{len(value)}")
        lines.extend(f"  {_entry(item)}" for item in value)
    return "\n".join(map(one_line, lines))


def _entry(item: object) -> str:
    if not isinstance(item, dict):
        return str(item)
    if "created_by" in item:
        return f"{item['created_by']}{'  (no layer)' if item['empty_layer'] else ''}"
    return "  ".join(size_text(value) if key == "size" else _words(value) for key, value in item.items())


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={each}" if isinstance(each, str) else str(name) for name, each in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
