# SPDX-License-Identifier: Apache-2.0
"""``arv-docker inspect``: the parts of an image in Keep, or at another place."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .. import cli
from ..errors import BadSettings, ClusterError, NoCluster, UsageError
from ..model.reference import references_in
from . import image_files, image_text, several

if TYPE_CHECKING:
    from ..archive.opened_image import OpenedImage
    from ..arvados.client import Cluster
    from ..arvados.stored import StoredImage
    from ..arvados.trust import Trust
    from ..model.image import Config, Descriptor, Digest

    #: Gives the uncompressed bytes of each layer; some may have to be read for it.
    Sizes = Callable[[], Mapping[Digest, int]]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.epilog = (
        "Of an image that is not in Keep the config and the structure are read, and of its layers nothing, unless\n"
        "it is piped in. Where a cluster is configured, or with --local, it says which other images in Keep have the\n"
        "same layers: a tool that converts images writes the config anew, and so makes another image.\n\n"
        "--platform chooses among several images in Keep by one name, too.\n\n"
        f"{several.SEVERAL}\n\n"
        "examples:\n"
        "  arv-docker inspect --local busybox:latest\n"
        "  arv-docker inspect docker-archive:busybox.tar\n"
        "  arv-docker inspect --json oci:layout:latest\n"
        "  arv-docker inspect --config docker://debian:12 | jq .config\n"
    )
    several.add_images_argument(
        parser,
        "NAME|UUID|PDH|SOURCE",
        "an image's name or ID, or a collection's UUID or PDH; or a source, as docker-archive:FILE[:NAME]",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--raw",
        action="store_true",
        help="print the image's manifest, byte for byte; of one in Keep, and of an archive that has none, that of the "
        "canonical archive",
    )
    what.add_argument("--config", action="store_true", help="print the image's config, byte for byte")
    cli.add_source_options(parser)
    cli.add_cluster_options(parser)
    cli.add_wide_option(parser)
    cli.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Print config and structure of each image, or the bytes of one."""
    if args.raw or args.config:
        return _print_bytes(args)
    return several.run_each(args, _inspect)


def _inspect(args: argparse.Namespace) -> int:
    """Read config and structure of the image, not its layers, and print them."""
    document = (_document_of_stored if _is_stored(args.name) else _document_of_source)(args)
    if args.json:
        several.print_document(args, document)
    else:
        cli.print_lines(args, image_text.lines_of(document))
    return 0


def _is_stored(name: str) -> bool:
    from ..transports import names

    return names.split(name)[0] in (None, "keep")


def _print_bytes(args: argparse.Namespace) -> int:
    """Write the config or the manifest of one image to standard output, and nothing else."""
    from ..archive import canonical

    if len(args.names) > 1 or args.json:
        raise UsageError("--raw and --config print the bytes of one image, without --json.")
    (args.name,) = args.names
    output = image_files.binary_output()
    with (_stored_image if _is_stored(args.name) else _source_image)(args) as (image, sizes):
        if args.config:
            output.write(image.config.raw)
        else:
            output.write(image.read_manifest() or canonical.manifest_of(image.config, sizes()))
    output.flush()
    return 0


@contextmanager
def _source_image(args: argparse.Namespace) -> Iterator[tuple[OpenedImage, Sizes]]:
    """The image of a source, of a stream at its end, and a function for the sizes of the layers."""
    from ..archive.opened_image import can_seek
    from ..transports import names

    shown = cli.progress_for(args)
    sizes: dict[Digest, int] = {}
    with names.source(args.name, cli.choice(args, shown)).open() as image:
        if image.streams:
            with shown.step("reading", None) as advance:
                for layer in image.layers():
                    while content := layer.read():
                        advance(len(content))
                    sizes[layer.diff_id] = layer.position
        yield image, lambda: image.sizes if can_seek(image) else sizes


@contextmanager
def _stored_image(args: argparse.Namespace) -> Iterator[tuple[OpenedImage, Sizes]]:
    """The image in Keep that the name means, and a function for the sizes of the layers."""
    with _cluster_of(args) as (cluster, name):
        image, _ = _resolve(args, cluster, name)
        yield image, lambda: image.sizes


def _document_of_source(args: argparse.Namespace) -> dict[str, object]:
    shown = cli.progress_for(args)
    with _source_image(args) as (image, _):
        config = image.config
        document: dict[str, object] = {
            "source": args.name,
            "image_id": str(config.digest),
            "platform": str(config.platform),
            "created": config.created,
            **image_text.settings_of(config),
            "tags": list(image.tags),
            "digests": [str(digest) for digest in image.digests],
            "layers": [
                {"diff_id": str(diff_id), **_compressed_form(image.compressed_layers.get(diff_id)), **command}
                for diff_id, command in zip(config.diff_ids, image_text.commands_of(config), strict=True)
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
    with _cluster_of(args) as (cluster, name):
        return _document(cluster, *_resolve(args, cluster, name))


@contextmanager
def _cluster_of(args: argparse.Namespace) -> Iterator[tuple[Cluster, str]]:
    """The cluster that an image's name means, and the name there."""
    from ..transports import keep

    place = keep.place_of(args.name) or keep.Place(None, args.name)
    with cli.cluster_named(args, place.cluster) as cluster:
        yield cluster, place.name


def _resolve(args: argparse.Namespace, cluster: Cluster, name: str) -> tuple[StoredImage, Trust]:
    """The image in Keep that the name means to a cluster, and whose word is taken there; warnings are told."""
    from ..arvados.catalog import platforms, resolver
    from ..arvados.stored import StoredImage
    from ..arvados.trust import Trust

    shown = cli.progress_for(args)
    trust = Trust.from_settings(cluster, cli.settings(args))
    found = resolver.resolve(cluster, name, trust)
    if args.platform:
        found = platforms.choose_platform(cluster, found, args.platform, shown)
    for warning in (*found.warnings, *resolver.container_warnings(name, found)):
        shown.warn(warning)
    return StoredImage(cluster, found.collection), trust


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
        **image_text.settings_of(image.config),
        "canonical": image.canonical is not None,
        "size": image.file.size,
        "pdh": pdh,
        "layers": [
            {"diff_id": str(diff_id), "size": image.archived.sizes[diff_id], **command}
            for diff_id, command in zip(image.config.diff_ids, image_text.commands_of(image.config), strict=True)
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
