# SPDX-License-Identifier: Apache-2.0
"""The command ``arv-keepdocker [options] [image [tag]]``, with the grammar of the original.

No word is a verb but ``images`` alone: an image may be called anything. What the
options do is done by the same functions as ``arv-docker ingest`` and ``images``.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from .. import __version__, cli
from ..errors import ArvDockerError
from ..local import progress
from ..model.reference import name_from_arguments
from . import HelpFormatter, exit_code_of, images, ingest, interrupt, without_local

logger = logging.getLogger("arvados.keepdocker")

if TYPE_CHECKING:
    from ..ingest.results import IngestResult

#: Exit codes above this one say which signal ended the command.
_SIGNALLED = 128

_EXIT_CODES = """\
exit codes, as ever (arv-docker ingest has one for each kind of failure):
  0    done
  1    failed; standard error says why
  2    the command line: an option that is not known
  130  interrupted (Ctrl-C); 143, 129: terminated, hung up
"""


def main(
    arguments: Sequence[str] | None = None,
    stdout: TextIO | None = None,
    stderr: TextIO | None = None,
    *,
    signals: bool = True,
    api: Any = None,
    command: bool = True,
    on_result: Callable[[IngestResult], object] | None = None,
) -> int:
    """Run the command and return its exit code; ``arguments`` and streams are those of the process unless given.

    ``api`` is an API client of the Arvados SDK to use instead of one made from the settings. Without ``command``
    another program calls this, which configures its logging itself. ``on_result`` is called with what became of the
    image.
    Raises SystemExit for ``--help``, ``--version`` and options that are not known.
    """
    out, err = stdout or sys.stdout, stderr or sys.stderr
    local, rest = without_local(sys.argv[1:] if arguments is None else arguments)
    args = parser().parse_args(rest)
    args.local, args.api = local, api
    level = os.environ.get("ARV_DOCKER_LOG", "") if command else None
    code = exit_code_of(
        lambda: _log_errors(lambda: _run(args, out, err, on_result)),
        "arv-keepdocker",
        out,
        err,
        signals=signals,
        log=level,
    )
    return interrupt.end_command(code if code == 0 or code > _SIGNALLED else 1)


def _log_errors(run: Callable[[], int]) -> int:
    """Call ``run``; an error goes to the original's logger too, for programs that have handlers there."""
    try:
        return run()
    except ArvDockerError as error:
        if logger.hasHandlers():
            with _without_the_sdk_handler():
                logger.error("%s", error)
        raise


@contextmanager
def _without_the_sdk_handler() -> Iterator[None]:
    """Keep the SDK's handler for standard error from repeating our own messages."""
    handler = getattr(sys.modules.get("arvados.logging"), "log_handler", None)
    if not isinstance(handler, logging.Handler):
        yield
        return
    handler.addFilter(_refuse)
    try:
        yield
    finally:
        handler.removeFilter(_refuse)


def _refuse(_: logging.LogRecord) -> bool:
    return False


def _run(args: argparse.Namespace, out: TextIO, err: TextIO, on_result: Callable[[IngestResult], object] | None) -> int:
    if args.from_archive is None and (args.image is None or (args.image == "images" and args.tag is None)):
        args.shown = _progress(args, err, progress.Lines)
        return _list(args, out)
    args.makes_site = True
    args.shown = _progress(args, err, progress.progress_on)
    name = None if args.image is None else name_from_arguments(args.image, args.tag)
    args.cache = args.cache and args.resume
    result = ingest.ingest_one(args, name, args.shown)
    if on_result is not None:
        on_result(result)
    print(result.uuid, file=out)
    return 0


def _progress(args: argparse.Namespace, err: TextIO, usual: Callable[[TextIO], progress.Progress]) -> progress.Progress:
    if args.silent:
        return progress.SilentProgress()
    if args.progress == "--no-progress":
        return progress.Messages(err)
    return progress.BatchLines(err) if args.progress == "--batch-progress" else usual(err)


def _list(args: argparse.Namespace, out: TextIO) -> int:
    from ..arvados.catalog.listing import list_images

    with cli.cluster(args) as cluster, cli.asking(args, "for the images"):
        listing = list_images(cluster, cli.trust(args, cluster, args.shown), project=args.project_uuid)
    print(images.table(listing.rows), file=out)
    return 0


def own_options() -> argparse.ArgumentParser:
    """The options that are not those of arv-put, as a parent for other parsers."""
    options = argparse.ArgumentParser(add_help=False)
    _add_version(options)
    ingest.add_options(options)
    return options


def parser(options: argparse.ArgumentParser | None = None) -> argparse.ArgumentParser:
    """Make the parser of the command, with the options of ``options`` in place of ``own_options``.

    Options may be shortened, as upstream's.
    """
    parser = argparse.ArgumentParser(
        prog="arv-keepdocker",
        description="Put a container image into Keep, or list the images that are there.",
        epilog="examples:\n  arv-keepdocker --local busybox latest\n  arv-keepdocker images\n\n" + _EXIT_CODES,
        formatter_class=HelpFormatter,
        parents=[options or own_options()],
    )
    parser.add_argument(
        "image", nargs="?", help="name or ID of an image; without one, or with the word images alone, list them"
    )
    parser.add_argument("tag", nargs="?", help="its tag, if the name does not say it (latest)")
    cli.add_engine_option(parser)
    cli.add_cluster_options(parser)
    _add_upload_options(parser)
    return parser


def _add_version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__} (arv-docker)")


def _add_upload_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of arv-put that arv-keepdocker takes and ``ingest`` has no use for."""
    shown = parser.add_mutually_exclusive_group()
    for option, meaning in (
        ("--progress", "show progress (default)"),
        ("--no-progress", "show no progress"),
        ("--batch-progress", "show bytes written and in all as lines for programs, as arv-put does"),
    ):
        shown.add_argument(option, dest="progress", action="store_const", const=option, help=meaning)
    parser.add_argument("--silent", action="store_true", help="print nothing but the UUID and errors")
    parser.add_argument("--batch", action="store_true", help="ask no questions (none are ever asked)")
    parser.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="use what an interrupted run left; --no-resume saves the image anew",
    )


if __name__ == "__main__":
    sys.exit(main())
