# SPDX-License-Identifier: Apache-2.0
"""``arv-docker copy``: images from one place to another."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .. import cli
from ..errors import ArvDockerError, UsageError, one_line
from ..local import progress
from ..local.numbered import NumberedProgress
from ..model.reference import ImageId, Reference, parse_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..ingest.between_clusters import Candidate, Copier, CopyResult
    from ..ingest.dry_run import IngestPlan
    from ..ingest.results import IngestResult
    from ..ingest.service import Options
    from ..model.image import Digest
    from ..transports import Destination, Source
    from ..transports.keep import Place
    from ..transports.names import Choice


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.epilog = (
        "SOURCE and DESTINATION are docker-archive:FILE[:NAME], oci:FOLDER[:NAME], oci-archive:FILE[:NAME],\n"
        "docker://NAME (a registry), docker-daemon:NAME, containers-storage:NAME (Podman),\n"
        "folder:FOLDER:IMAGE[:VERSION], or keep:[CLUSTER/]NAME, where CLUSTER names a\n"
        "settings file as for arv-copy (CLUSTER.conf beside settings.conf), and NAME may be a UUID or a PDH.\n"
        "From cluster to cluster an image keeps its names and its portable data hash; blocks go once, and only\n"
        "those that are missing. A run that was interrupted is completed by the next. Names by the word of users who\n"
        "are not trusted are refused (exit code 8), or with --all left out and listed at the end.\n\n"
        "examples:\n"
        "  arv-docker copy keep:tools/bwa:1 docker-archive:bwa.tar\n"
        "  arv-docker copy docker://debian:12 oci:layout:debian\n"
        "  arv-docker copy keep:pirca/tools/bwa:1 keep:tordo/\n"
        "  arv-docker copy --all --dry-run keep:pirca/ keep:tordo/\n"
        "  arv-docker copy --dry-run docker://debian:12 docker-daemon:debian:12\n"
    )
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("destination", metavar="DESTINATION")
    parser.add_argument("--all", action="store_true", help="every image of the cluster SOURCE, with all its names")
    parser.add_argument("--source-project", metavar="UUID", help="with --all: only those that this project there owns")
    parser.add_argument(
        "--project-uuid", metavar="UUID", help="the project to own the collections and links that are written"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be copied, or how many layers are there; do nothing"
    )
    cli.add_source_options(parser, "--src-creds", "--dest-creds")
    cli.add_trust_option(parser)
    parser.set_defaults(makes_site=True)
    cli.add_cluster_options(parser)
    cli.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Copy the images, and print where they are now."""
    from ..transports import keep

    source, target = keep.place_of(args.source), keep.place_of(args.destination)
    if args.all and not (source and target and not source.name and not target.name):
        raise UsageError("--all copies from cluster to cluster: write keep:CLUSTER/ for both.")
    if args.source_project and not args.all:
        raise UsageError("--source-project says which images of a cluster are copied with --all.")
    if source and not source.name and not args.all:
        raise UsageError("which image? Write keep:[CLUSTER/]NAME, or --all.")
    shown = NumberedProgress(cli.progress_for(args))
    if source and target and not target.name:
        return _between(args, source, target, shown)
    if target:
        return _into_keep(args, target, shown)
    return _copy_elsewhere(args, shown)


def _between(args: argparse.Namespace, source: Place, target: Place, shown: NumberedProgress) -> int:
    """Copy images from one cluster to another, names and all."""
    from ..ingest import between_clusters

    with cli.cluster_named(args, source.cluster) as there, cli.cluster_named(args, target.cluster) as here:
        trust = cli.trust(args, there, shown)
        if args.all:
            every = between_clusters.images_of(there, trust, args.source_project)
        else:
            every = [between_clusters.image_named(there, source.name, trust)]
        images = [image for image in every if image.trusted or not args.all]
        copying = between_clusters.Copier(there, here, _options(args), shown, trust)
        start = time.monotonic()
        outcomes = _copy_each(args, copying, images, shown)
        with shown.step("comparing what names mean", None):  # not of a cluster that failed
            differing = copying.settle_names() if len(outcomes) == len(images) else []
        seconds = time.monotonic() - start
    whole = args.all and not args.source_project
    for difference in differing:  # of some of the images a name may well mean one of the others
        (shown.fail if whole or difference.copied else shown.warn)(str(difference))
    failures = [outcome for outcome in outcomes if isinstance(outcome, ArvDockerError)]
    names = {difference.name for difference in differing}
    if args.json:
        documents = [
            _document(image, outcome) | {"differing": [it.link_name for it in image.names if it.link_name in names]}
            for image, outcome in zip(images, outcomes, strict=False)
        ]
        documents += [_left_out(image) for image in every if image not in images]
        cli.print_json(documents if args.all else documents[0])
    else:
        for done in outcomes:
            if not isinstance(done, ArvDockerError):
                print(one_line(str(done)) if args.dry_run else done.uuid)
    if args.all:
        _sum_up(len(images), outcomes, seconds, shown, dry_run=args.dry_run)
    _warn_of_left_out(every, shown)
    if failures:
        return failures[0].exit_code
    return cli.SHADOWED if any(whole or difference.copied for difference in differing) else 0


def _warn_of_left_out(images: Sequence[Candidate], shown: progress.Progress) -> None:
    for image in images:
        for name, writer in image.left_out:
            shown.warn(
                f"left out: {name}, which means {image.collection.uuid} by the word of {writer} alone, who is not "
                "trusted (--trust-readable)"
            )


def _copy_each(
    args: argparse.Namespace, copying: Copier, images: Sequence[Candidate], shown: NumberedProgress
) -> list[CopyResult | IngestPlan | ArvDockerError]:
    """Copy or plan the images; with ``--all`` an error about one image is in the place of its result.

    An error of the cluster itself, which the next image would meet too, ends the list.
    """
    outcomes: list[CopyResult | IngestPlan | ArvDockerError] = []
    shown.count = len(images)
    for shown.number, image in enumerate(images, 1):
        try:
            outcome = copying.plan(image) if args.dry_run else copying.run(image)
            _tell(image, outcome, shown)
            outcomes.append(outcome)
        except ArvDockerError as error:
            if not args.all:
                raise
            shown.fail(f"{image}: {error.message}")
            outcomes.append(error)
            if cli.is_of_the_cluster(error):
                break
    return outcomes


def _sum_up(
    count: int,
    outcomes: Sequence[CopyResult | IngestPlan | ArvDockerError],
    seconds: float,
    shown: progress.Progress,
    *,
    dry_run: bool,
) -> None:
    """Say how many of the images were copied, what was sent for them, and how many were not tried."""
    from ..ingest.between_clusters import CopyResult

    copies = [outcome for outcome in outcomes if isinstance(outcome, CopyResult)]
    done = sum(not isinstance(outcome, ArvDockerError) for outcome in outcomes)
    facts = [f"{done} of {count} images {'planned' if dry_run else 'copied'}"]
    if not dry_run:
        facts.append(f"{progress.size_text(sum(it.bytes_sent for it in copies))} sent")
        facts.append(f"{progress.size_text(sum(it.bytes_skipped for it in copies))} were there")
        facts.append(f"{seconds:.0f} s")
    if len(outcomes) < count:
        facts.append(f"{count - len(outcomes)} not tried, for the cluster failed")
    shown.say(", ".join(facts))


def _into_keep(args: argparse.Namespace, target: Place, shown: progress.Progress) -> int:
    """Copy one image from anywhere into Keep, as ``ingest`` does it."""
    from ..ingest.service import Ingest

    source = _source(args, shown)
    with cli.cluster_named(args, target.cluster) as here:
        ingest = Ingest(here, _options(args), shown)
        name = _name(target.name) if target.name else None
        do = ingest.plans.source if args.dry_run else ingest.from_source
        outcome: IngestResult | IngestPlan = do(source, name, source.catalog_name)
    if args.json:
        cli.print_json(cli.as_json(outcome))
    else:
        print(one_line(str(outcome)) if args.dry_run else outcome.uuid)
    return 0


def _copy_elsewhere(args: argparse.Namespace, shown: progress.Progress) -> int:
    """Copy an image to a destination other than a cluster, and print the ID."""
    from ..transports import names

    destination: Destination[Any] = names.destination(
        args.destination, _choice(args, shown, args.destination, args.source)
    )
    if args.dry_run:
        return _ask_destination(args, destination, shown)
    with _source(args, shown).open() as image:
        with shown.step(f"copying to {args.destination}", None) as advance:
            destination.write(image, advance)
        image_id = image.config.digest
    if args.json:
        cli.print_json({"destination": args.destination, "image_id": str(image_id)})
    else:
        print(image_id)
    return 0


def _ask_destination(args: argparse.Namespace, destination: Destination[Any], shown: progress.Progress) -> int:
    """Ask a destination other than a cluster which layers of an image are present; print the number and the total."""
    image_id, layers = _layers(_source(args, shown))
    count, there = len(set(layers)), len(destination.present(layers))
    if args.json:
        document = {"destination": args.destination, "image_id": str(image_id), "layers": count, "layers_held": there}
        cli.print_json(document)
    else:
        print(f"{args.source}: {there} of {count} layers are there")
    return 0


def _layers(source: Source) -> tuple[Digest, tuple[Digest, ...]]:
    """An image's ID and layers, without reading any layer."""
    if (place := source.in_engine()) is not None:
        return place.image.id, place.image.diff_ids
    with source.open() as image:
        if image.streams:
            raise UsageError("what is piped in is known only when all of it was read; save it to a file first.")
        return image.config.digest, image.config.diff_ids


def _source(args: argparse.Namespace, shown: progress.Progress) -> Source:
    """The place where the image is read from."""
    from ..transports import names

    return names.source(args.source, _choice(args, shown, args.source, args.destination))


def _choice(args: argparse.Namespace, shown: progress.Progress, text: str, other: str) -> Choice:
    """The options for one of two places; of two registries ``--insecure`` is for the local registry."""
    from ..transports import names

    insecure = args.insecure and (names.is_here(text) or not names.is_here(other))
    creds = "--src-creds" if text == args.source else "--dest-creds"
    return cli.choice(args, shown, insecure=insecure, creds=creds)


def _options(args: argparse.Namespace) -> Options:
    from ..ingest.service import Options

    return Options.from_settings(cli.settings(args), cli.cache_folder(args), args.project_uuid)


def _name(text: str) -> Reference:
    name = parse_name(text)
    if isinstance(name, ImageId):
        raise UsageError(f"{text!r} is an image ID; an image is copied to a name.")
    return name


def _tell(image: Candidate, outcome: CopyResult | IngestPlan, shown: progress.Progress) -> None:
    from ..ingest.between_clusters import CopyResult

    if isinstance(outcome, CopyResult):
        state = "already there" if outcome.already else "copied"
        spared = f", {progress.size_text(outcome.bytes_skipped)} were there" if outcome.bytes_skipped else ""
        shown.say(
            f"{image}: {state}, {progress.size_text(outcome.bytes_sent)} sent{spared}, {outcome.links_written} links"
        )


def _document(image: Candidate, outcome: CopyResult | IngestPlan | ArvDockerError) -> dict[str, object]:
    if isinstance(outcome, ArvDockerError):
        told = {"error": outcome.message, "detail": outcome.detail, "exit_code": outcome.exit_code}
        return {"source": image.collection.uuid, **told}
    return _left_out(image) | cli.as_json(outcome)


def _left_out(image: Candidate) -> dict[str, object]:
    """The names of an image that were not copied, for programs."""
    names = [{"name": name, "linked_by": writer} for name, writer in image.left_out]
    return {"source": image.collection.uuid, "left_out": names}
