# SPDX-License-Identifier: Apache-2.0
"""``arv-docker build``: an image out of a Dockerfile and its context, and if wanted into Keep."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from .. import cli
from ..errors import UsageError
from ..local import progress
from ..model.reference import ImageId, Reference

if TYPE_CHECKING:
    from ..engines import Engine, EngineImage
    from ..ingest.results import IngestResult
    from ..ingest.service import Ingest


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.epilog = (
        "PATH is a folder with a Dockerfile, a tar of one (also compressed), or - for a tar that is piped in.\n"
        "Prints the image's ID, or with --ingest the UUID of its collection. What the engine says while it builds\n"
        "goes to standard error; if the build fails, the end of that is the error's, and the exit code is 11.\n\n"
        "examples:\n"
        "  arv-docker build -t app:1 .\n"
        "  arv-docker build -t app:1 --ingest .\n"
        "  git archive HEAD | arv-docker build --engine podman -t app:1 -\n"
    )
    parser.add_argument("path", metavar="PATH", help="the context: a folder, a tar, or - for standard input")
    parser.add_argument("-t", "--tag", type=_name, metavar="NAME[:TAG]", help="what to call the image")
    parser.add_argument(
        "-f",
        "--file",
        default="",
        metavar="FILE",
        help="the Dockerfile, if not the usual one; in a tar, its path there",
    )
    parser.add_argument(
        "--build-arg",
        action="append",
        default=[],
        type=_argument,
        metavar="NAME[=VALUE]",
        help="an argument of the Dockerfile; without a value that of the environment",
    )
    parser.add_argument("--label", action="append", default=[], type=_pair, metavar="NAME=VALUE", help="a label")
    cli.add_platform_option(parser, "which the engine can build here")
    parser.add_argument(
        "--cache-from", action="append", default=[], metavar="IMAGE", help="an image whose layers may be used"
    )
    parser.add_argument("--memory", default="", metavar="SIZE", help="most memory of a step, for example 2g")
    parser.add_argument("--memory-swap", default="", metavar="SIZE", help="most memory and swap together; -1: any")
    parser.add_argument("--cpu-shares", default="", metavar="N", help="weight of a step where processors are short")
    parser.add_argument("--cpuset-cpus", default="", metavar="CPUS", help="processors for the steps, for example 0-3")
    parser.add_argument("--network", default="", metavar="MODE", help="network of the steps: none, host, …")
    parser.add_argument("--ingest", action="store_true", help="put the image into Keep")
    parser.add_argument("--project-uuid", metavar="UUID", help="the project to own the collection and its links")
    cli.add_trust_option(parser)
    cli.add_engine_option(parser)
    parser.set_defaults(makes_site=True)
    cli.add_cluster_options(parser)
    cli.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Build the image, store it if wanted, and print IDs and names."""
    if args.project_uuid and not args.ingest:
        raise UsageError("--project-uuid is for an image that goes into Keep: give --ingest too.")
    shown = cli.progress_for(args)
    engine = cli.engine(args)
    with ExitStack() as stack:
        # A cluster that is not there is said before the build and not after it.
        ingest = stack.enter_context(_ingest(args, shown)) if args.ingest else None
        image = _build_image(args, engine, shown)
        stored = ingest.from_engine(engine, _build_names(args, image), image) if ingest else None
    if stored is not None:
        shown.say(f"{args.tag or image.id}: {stored.state}, {progress.size_text(stored.bytes_sent)} sent")
    if args.json:
        cli.print_json(_document(args.tag, image, stored))
    else:
        print(stored.uuid if stored else image.id)
    return 0


def _build_image(args: argparse.Namespace, engine: Engine, shown: progress.Progress) -> EngineImage:
    from ..engines.building import Build
    from ..engines.output import Ending, steady_lines

    with _context(args.path) as context:
        wanted = Build(
            context,
            tag=args.tag,
            dockerfile=str(Path(args.file).absolute()) if args.file and isinstance(context, Path) else args.file,
            arguments=dict(args.build_arg),
            labels=dict(args.label),
            platform=args.platform,
            cache_from=args.cache_from,
            memory=args.memory,
            memory_swap=args.memory_swap,
            cpu_shares=args.cpu_shares,
            cpuset_cpus=args.cpuset_cpus,
            network=args.network,
        )
        ending = Ending(steady_lines(engine.build(wanted)))
        with shown.step(f"building {args.tag or 'the image'}", None):
            for line in ending:
                shown.say(line.rstrip("\n"))
    return ending.value


@contextmanager
def _context(path: str) -> Iterator[Path | IO[bytes]]:
    """The folder, or the open file, that a path means."""
    if path == "-":
        yield sys.stdin.buffer
        return
    if Path(path).is_dir():
        yield Path(path)
        return
    if not Path(path).is_file():
        raise UsageError(f"{path} is no context to build from: there is no such file or folder. Give one, a tar, or -.")
    with Path(path).open("rb") as file:
        yield file


@contextmanager
def _ingest(args: argparse.Namespace, shown: progress.Progress) -> Iterator[Ingest]:
    from ..ingest.service import Ingest, Options

    options = Options.from_settings(cli.settings(args), cli.cache_folder(args), args.project_uuid)
    with cli.cluster(args) as cluster:
        yield Ingest(cluster, options, shown, cli.trust(args, cluster, shown))


def _build_names(args: argparse.Namespace, image: EngineImage) -> Reference | ImageId:
    return args.tag or ImageId(image.id.hex)


def _document(tag: Reference | None, image: EngineImage, stored: IngestResult | None) -> dict[str, object]:
    found: dict[str, object] = {"engine_id": str(image.id), "name": str(tag) if tag else None}
    return found if stored is None else found | cli.as_json(stored)


def _name(text: str) -> Reference:
    try:
        return Reference.parse(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(error.message) from None


def _argument(text: str) -> tuple[str, str | None]:
    name, equals, value = text.partition("=")
    if not equals and name not in os.environ:
        raise argparse.ArgumentTypeError(f"the environment has no variable {name!r}; write {name}=VALUE")
    return name, value if equals else None


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value
