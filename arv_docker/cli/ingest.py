# SPDX-License-Identifier: Apache-2.0
"""``arv-docker ingest``: images from engines, archives and registries into Keep."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .. import cli
from ..errors import ArvDockerError, NoSuchImage, UsageError, one_line
from ..local import progress
from ..local.background import future_of
from ..local.numbered import NumberedProgress
from ..model.reference import ImageId, Reference, parse_name
from .several import tell_failure

if TYPE_CHECKING:
    from concurrent.futures import Future

    from ..arvados.client import Cluster
    from ..ingest.dry_run import IngestPlan
    from ..ingest.from_engine import Inspected
    from ..ingest.request import IngestRequest
    from ..ingest.results import IngestResult
    from ..ingest.run import Outcome
    from ..ingest.service import Ingest


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.epilog = (
        "An IMAGE is a name or ID in an engine, or a source: docker-daemon:NAME, containers-storage:NAME,\n"
        "docker-archive:FILE[:NAME], oci-archive:FILE[:NAME], oci:FOLDER[:NAME], docker://NAME (a registry),\n"
        "folder:FOLDER:IMAGE[:VERSION].\n\n"
        "Prints the UUID of each image's collection, in the order of the arguments. An image that is there already\n"
        "is not stored again. Of several images each is stored by itself: what fails for one leaves the others\n"
        "whole, and the exit code is that of the first failure. With --all and --all-platforms --json is a list.\n\n"
        "examples:\n"
        "  arv-docker ingest busybox:latest\n"
        "  arv-docker ingest app:1 app:2 app:3\n"
        "  arv-docker ingest --dry-run app:4\n"
        "  arv-docker ingest docker://debian:12 --as base:12\n"
        "  arv-docker ingest --all docker-archive:three.tar\n"
        "  arv-docker ingest --all-platforms docker://debian:12\n"
        "  arv-docker ingest --unique app:1\n"
        "  arv-docker ingest --local --from-archive busybox.tar busybox:latest\n"
    )
    parser.add_argument("image", nargs="*", metavar="IMAGE", help="the images; with --from-archive the name to give it")
    parser.add_argument("--as", dest="called", metavar="NAME[:TAG]", help="link the image by this name, not its own")
    parser.add_argument(
        "--unique",
        action="store_true",
        help="link the image by one more name too, such as app:1-b038788ddb with digits of its ID, which can never "
        "mean another one",
    )
    parser.add_argument("--all", action="store_true", help="every image of an archive or layout, by its own names")
    parser.add_argument(
        "--all-platforms",
        action="store_true",
        help="the image for each platform that a registry, layout or archive has it for, all by the same name",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what is stored already and what would be sent; change nothing"
    )
    cli.add_source_options(parser)
    add_options(parser)
    cli.add_engine_option(parser)
    parser.set_defaults(makes_site=True)
    cli.add_cluster_options(parser)
    cli.add_json_option(parser)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options in common with ``arv-keepdocker``."""
    parser.add_argument("-f", "--force", action="store_true", help="store the image again, even if it is there")
    parser.add_argument("--project-uuid", metavar="UUID", help="the project to own the collection and its links")
    parser.add_argument("--name", help="the collection's name, instead of one made from the image's")
    parser.add_argument(
        "--from-archive",
        metavar="FILE",
        type=Path,
        help="read the image from a file that docker save, podman save or skopeo wrote; needs no engine",
    )
    parser.add_argument(
        "--image-id",
        choices=("config", "manifest", "both"),
        help="which digest names the file in Keep: config, manifest for nodes with Docker's containerd store, or both: "
        "two collections over the same blocks; the one that the nodes know (the setting ARV_DOCKER_IMAGE_ID, else "
        "config) gets the image's name",
    )
    cli.add_trust_option(parser)
    parser.add_argument("--pull", action=argparse.BooleanOptionalAction, help="fetch the image from its registry first")
    parser.add_argument(
        "--cache",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep the saved tarball until the image is in Keep, so that a second try needs no second save (default)",
    )
    parser.add_argument("--keep-tarball", action="store_true", help="leave the saved tarball in the cache afterwards")
    parser.add_argument(
        "--image-properties",
        action="store_true",
        help="record the image's ID and time as properties docker-image-hash and docker-image-timestamp of a new "
        "collection; a cluster with a strict vocabulary may refuse them",
    )
    parser.add_argument(
        "--force-image-format",
        action="store_true",
        help="store the image even if the cluster does not say that it accepts version 2 images",
    )


def run(args: argparse.Namespace) -> int:
    """Ingest the images and print the UUIDs of their collections."""
    if not args.image and args.from_archive is None:
        raise UsageError("which image? Give its name or ID, a source, or --from-archive FILE.")
    if len(args.image) > 1 and (args.from_archive or args.name or args.called):
        raise UsageError("--from-archive, --name and --as are for one image, and several are given.")
    _check_several(args)
    if args.pull and (args.from_archive or any(_engine_name(text) is None for text in args.image)):
        raise UsageError("--pull is for images of an engine, by their names.")
    shown = NumberedProgress(cli.progress_for(args))
    request = _request(args, shown)
    name = _engine_name(request.images[0]) if len(request.images) == 1 and not request.dry_run else None
    inspected = _inspect_early(args, name)
    outcomes: list[tuple[str, Outcome]] = []
    shown.count = 0 if request.for_several else len(request.images)
    several, start = request.for_several or len(request.images) > 1, time.monotonic()
    with cli.cluster(args) as cluster:
        from ..ingest.run import IngestRun

        ingest, engine = _ingest(args, cluster, shown), partial(cli.engine, args)
        run = IngestRun(request, cluster, ingest, engine, progress=shown, inspected=inspected)
        for text, found in run.outcomes():
            outcome = _with_hint(text, found)
            if not isinstance(outcome, ArvDockerError):
                _tell(outcome, shown)
            elif several:  # else the command ends with it
                tell_failure(text or str(args.from_archive), outcome, shown)
            outcomes.append((text, outcome))
            shown.number = len(outcomes) + 1
            if several and isinstance(outcome, ArvDockerError) and cli.is_of_the_cluster(outcome):
                left = len(request.images) - len(outcomes)
                of_them = f"{left} of {len(request.images)}" if not request.for_several else "the other"
                if left or request.for_several:
                    shown.fail(f"{of_them} images were not tried: the cluster fails")
                break
    return _conclude(args, request, outcomes, shown, time.monotonic() - start)


def _conclude(
    args: argparse.Namespace,
    request: IngestRequest,
    outcomes: list[tuple[str, Outcome]],
    shown: progress.Progress,
    seconds: float,
) -> int:
    """Print what became of the images, and return the exit code."""
    from ..ingest.results import IngestResult

    failures = [outcome for _, outcome in outcomes if isinstance(outcome, ArvDockerError)]
    done = [outcome for _, outcome in outcomes if not isinstance(outcome, ArvDockerError)]
    several = request.for_several or len(request.images) > 1
    if failures and not several:
        raise failures[0]
    if args.json:
        documents = [_document(text, outcome, every=request.for_several) for text, outcome in outcomes]
        cli.print_json(documents if several else documents[0])
    else:
        for outcome in done:
            print(one_line(str(outcome)) if request.dry_run else outcome.uuid)
    if hint := _hint_at_tag(outcomes):
        shown.fail(hint)
    if several:
        state = "are planned" if request.dry_run else "are in Keep"
        count = len(outcomes) if request.for_several else len(request.images)
        facts = [f"{len(done)} of {count} images {state}", *([f"{len(failures)} failed"] if failures else [])]
        results = [outcome for outcome in done if isinstance(outcome, IngestResult)]
        if results:
            facts.append(f"{progress.size_text(sum(it.bytes_sent for it in results))} sent")
            facts.append(f"{progress.size_text(sum(it.bytes_skipped for it in results))} were there")
            facts.append(f"{seconds:.0f} s")
        shown.say(", ".join(facts))
    return failures[0].exit_code if failures else 0


def _with_hint(text: str, outcome: Outcome) -> Outcome:
    """Return the outcome; an image that is not there gets a hint where the text is something else."""
    if type(outcome) is NoSuchImage and (hint := cli.hint_at_place(text)):
        return NoSuchImage(f"{outcome.message} {hint}", detail=outcome.detail)
    return outcome


def _hint_at_tag(outcomes: Sequence[tuple[str, Outcome]]) -> str:
    """A hint for a tag that is written as a second word, as for arv-keepdocker; empty for other errors."""
    if len(outcomes) != 2 or not isinstance(outcomes[1][1], NoSuchImage):
        return ""
    name, tag = outcomes[0][0], outcomes[1][0]
    if ":" in name or not re.fullmatch(r"[\w][\w.-]{0,127}", tag):
        return ""
    return f"If {tag} is meant as a tag: arv-docker ingest {name}:{tag}"


def _check_several(args: argparse.Namespace) -> None:
    """Refuse options that are for one image where an option asks for several."""
    option = "--all" if args.all else "--all-platforms"
    if not (args.all or args.all_platforms):
        return
    if args.all and (args.all_platforms or args.called):
        raise UsageError(
            "--all takes every image for every platform, by its own names: give no --all-platforms, no --as."
        )
    if args.platform or args.name or args.pull:
        raise UsageError(f"{option} goes with none of --platform, --name and --pull, which are for one image.")


def ingest_one(args: argparse.Namespace, name: Reference | ImageId | None, shown: progress.Progress) -> IngestResult:
    """Ingest an image of an engine or archive, as ``arv-keepdocker`` does; ``shown`` is told the outcome."""
    from ..ingest.request import IngestRequest

    request = IngestRequest((), from_archive=args.from_archive, pull=bool(args.pull), follow_cluster=True)
    inspected = _inspect_early(args, name)
    with cli.cluster(args) as cluster:
        from ..ingest.from_engine import store_from_engine

        ingest = _ingest(args, cluster, shown)
        if request.from_archive is not None:
            result = ingest.from_archive(request.from_archive, name)
        else:
            assert name is not None
            result = store_from_engine(
                ingest, request, partial(cli.engine, args), name, progress=shown, inspected=inspected
            )
    _tell(result, shown)
    return result


def _request(args: argparse.Namespace, shown: progress.Progress) -> IngestRequest:
    from ..ingest.request import IngestRequest

    return IngestRequest(
        tuple(args.image or [""]),
        from_archive=args.from_archive,
        name=Reference.parse(args.called) if args.called else None,
        choice=cli.choice(args, shown),
        every=args.all,
        all_platforms=args.all_platforms,
        unique=args.unique,
        pull=bool(args.pull),
        dry_run=args.dry_run,
    )


def _engine_name(text: str) -> Reference | ImageId | None:
    """The name of an engine's image in a text; None for an image of another source, and for no name."""
    from ..transports import names

    with suppress(ArvDockerError):
        if names.split(text)[0] is None:
            return parse_name(text)
    return None


def _inspect_early(args: argparse.Namespace, name: Reference | ImageId | None) -> Future[Inspected] | None:
    """Ask the engine for an image in the background, while the SDK is loaded, which takes longer; None if not to be."""
    if name is None or args.pull or args.from_archive is not None:
        return None

    def inspect() -> Inspected:
        engine = cli.engine(args)
        return engine, engine.inspect(name)

    return future_of(inspect, "inspect")


def _ingest(args: argparse.Namespace, cluster: Cluster, shown: progress.Progress) -> Ingest:
    from ..ingest.service import Ingest, Options

    options = replace(
        Options.from_settings(cli.settings(args), cli.cache_folder(args), args.project_uuid, args.image_id),
        name=args.name,
        force=args.force,
        use_cache=args.cache,
        keep_tarball=args.keep_tarball,
        force_image_format=args.force_image_format,
        describe=args.image_properties,
    )
    return Ingest(cluster, options, shown, cli.trust(args, cluster, shown))


def _tell(outcome: IngestResult | IngestPlan, shown: progress.Progress) -> None:
    """Say what became of an image that was stored; a plan is printed at the end."""
    from ..ingest.results import IngestResult

    if not isinstance(outcome, IngestResult):
        return
    skipped = f", {progress.size_text(outcome.bytes_skipped)} were in Keep" if outcome.bytes_skipped else ""
    shown.say(
        f"{outcome.name or outcome.image_id}: {outcome.state}, {progress.size_text(outcome.bytes_sent)} sent{skipped}"
    )
    if outcome.twin:
        shown.say(f"under {outcome.twin.image_id} too, of the same blocks: {outcome.twin.uuid}")
    if outcome.unique:
        shown.say(f"{outcome.unique}: means this image and can never mean another one")


def _document(text: str, outcome: Outcome, *, every: bool) -> dict[str, object]:
    """The document of an outcome, for programs; with ``every`` image of a source it names the image."""
    if isinstance(outcome, ArvDockerError):
        return {"asked": text, "error": outcome.message, "detail": outcome.detail, "exit_code": outcome.exit_code}
    return ({"asked": text} if every else {}) | cli.as_json(outcome)
