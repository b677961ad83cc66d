# SPDX-License-Identifier: Apache-2.0
"""The commands. One module for each verb of ``arv-docker``, with ``configure`` and ``run``.

Here is what they share: options for the cluster, and how an error becomes a message and
an exit code. Only this package knows of the embedded site and of standard output.
"""

from __future__ import annotations

from . import interrupt  # first of all: Ctrl-C while the others are imported

# isort: split
import argparse
import atexit
import codecs
import gc
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import ArvDockerError, ClusterError, DiskError, KeepError, UsageError

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType
    from typing import TextIO

    from _typeshed import DataclassInstance

    from ..arvados.client import Cluster, Link
    from ..arvados.trust import Trust
    from ..engines import Engine
    from ..engines.apptainer import Apptainer
    from ..local.progress import Progress
    from ..local.settings import Settings
    from ..model.image import Platform
    from ..transports.names import Choice

INTERRUPTED = interrupt.INTERRUPTED

#: The exit code when a name means something else to the cluster than was wanted.
SHADOWED = 8

EXIT_CODES = """\
exit codes:
  0    done
  1    the image: there is none of that name, or more than one; anything without a code of its own
  2    the command line: an unknown option, a text that is no image name
  3    the engine: none installed, not running, not permitted, or its command failed
  4    the cluster: not reachable, refuses, or Keep lost a block
  5    the content: not an image, a damaged archive, bytes that do not match their digest
  6    settings: no cluster configured and no --local
  7    this machine's disk: full, or a folder that cannot be written
  8    the name: to the cluster it means another image, or it is another one's alone (link, tag, untag, status,
       ingest, copy)
  9    a registry: not reachable, refuses, or does not offer what was asked for
  10   an image that is not ready for use (registry status, registry wait, --wait)
  11   a build that failed (build)
  130  interrupted (Ctrl-C); 143, 129: terminated, hung up
"""

ENGINES = ("docker", "podman", "auto")
#: What runs images and holds none, for the verbs that can do with that.
APPTAINER = "apptainer"

#: Seconds that an image's being ready is waited for.
_TIMEOUT = 600.0


def _natural_number(text: str) -> int:
    """Return the number of times in ``text``; raises what argparse tells the user."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of times")
    return int(text)


class _WrittenShort(argparse.Action):
    """An action that refuses ``--loc``, which would go past ``without_local``, and the image to a cluster instead."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        parser.error("write --local in full, with a folder as --local=FOLDER")


#: The options that say how much is told, by what is meant; they may stand before the verb too.
_TELLING = {"-q": "quiet", "--quiet": "quiet", "-v": "verbose", "--verbose": "verbose", "--debug": "debug"}


def add_telling_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--quiet``, ``--verbose`` and ``--debug`` to the help; ``without_telling`` takes them out before parsing."""
    group = parser.add_argument_group("how much is told, for every verb")
    for options, meaning in (
        (("-q", "--quiet"), "the result, warnings and errors alone"),
        (("-v", "--verbose"), "also the commands of engines and what was decided"),
        (("--debug",), "also each request (or ARV_DOCKER_LOG=debug)"),
    ):
        group.add_argument(*options, action="store_true", default=argparse.SUPPRESS, help=meaning)


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    epilog: str = "",
    more: str = "",
) -> argparse.ArgumentParser:
    """Add a command below another: ``summary`` is in the list of them, ``more`` stands behind it in the command's own
    help, and ``epilog`` below, both as they are written."""
    command = commands.add_parser(
        name,
        help=summary,
        description=summary + more,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_telling_options(command)
    return command


def add_cluster_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--local`` and ``--retries``; ``without_local`` takes ``--local`` out, which stands here for ``--help``."""
    from ..arvados.client import RETRIES

    parser.add_argument(
        "--local",
        metavar="[=FOLDER]",
        action=_WrittenShort,
        default=argparse.SUPPRESS,
        help="use a site on this machine instead of a cluster: in FOLDER, or in $ARV_DOCKER_SITE, "
        "or in the user's data folder; verbs that put images there make it",
    )
    parser.add_argument(
        "--retries",
        type=_natural_number,
        default=RETRIES,
        metavar="N",
        help=f"try a failed request N times more ({RETRIES})",
    )


def add_trust_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--trust-readable``."""
    parser.add_argument(
        "--trust-readable",
        action="store_true",
        help="take everybody's word for what a collection holds, as the original does; "
        "otherwise only yours, the system's and that of the users in ARV_DOCKER_TRUSTED_WRITERS",
    )


def add_engine_option(parser: argparse.ArgumentParser, *others: str) -> None:
    """Add ``--engine``, which may also be one of ``others``."""
    parser.add_argument(
        "--engine",
        choices=(*ENGINES, *others),
        default=ENGINES[0],
        help="the container engine to use (docker); auto: the first of them that has the image, which is said",
    )


def add_platform_option(parser: argparse.ArgumentParser, more: str) -> None:
    """Add ``--platform``; ``more`` says where it counts."""
    text = f"the image for this platform, {more}"
    parser.add_argument("--platform", metavar="OS/ARCH", type=_platform, help=text)


def add_source_options(parser: argparse.ArgumentParser, *creds: str) -> None:
    """Add ``--platform``, ``--insecure``, ``--authfile`` and ``--creds``, or what ``creds`` names in its place."""
    add_platform_option(parser, "of a source that has several")
    add_insecure_option(parser)
    add_login_options(parser, *creds)


def add_login_options(parser: argparse.ArgumentParser, *creds: str) -> None:
    """Add ``--authfile`` and ``--creds``, or what ``creds`` names in its place."""
    from . import registry_access

    registry_access.add_options(parser, *(creds or ("--creds",)))


def add_insecure_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--insecure``."""
    parser.add_argument("--insecure", action="store_true", help="talk to a registry on this machine without TLS")


def as_folder(text: str) -> Path:
    """A folder, as the type of an argument. An empty text, of an unset variable, is not the current one."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty; . is the current folder")
    from pathlib import Path

    return Path(text)


def _platform(text: str) -> Platform:
    from ..model.manifest import parse_platform

    try:
        return parse_platform(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(error.message) from None


def add_timeout_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--timeout``, for who waits until an image is ready."""
    parser.add_argument(
        "--timeout", type=_seconds, default=_TIMEOUT, metavar="SECONDS", help=f"wait so long ({_TIMEOUT:g})"
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= 10**7:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds


def add_deletion_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--yes`` and ``--dry-run``, for verbs that may delete links of other users."""
    parser.add_argument("--yes", action="store_true", help="delete links of other users too, without asking")
    parser.add_argument("--dry-run", action="store_true", help="say what links would be deleted; write nothing")


def confirm_deletion(args: argparse.Namespace, cluster: Cluster, links: Sequence[Link], shown: Progress) -> None:
    """Name the links that would be deleted, and ask where some are other users'; raise NotConfirmed if it may not be.

    Who may delete what others wrote, as an administrator may, would else do so without noticing.
    """
    from ..errors import NotConfirmed

    may_write = {owner: cluster.may_write(owner) for owner in {link.owner_uuid for link in links}}
    links = [link for link in links if may_write[link.owner_uuid]]
    others = [link for link in links if link.modified_by != cluster.user_uuid]
    for link in links if args.dry_run else others:
        shown.say(
            f"link {link.uuid} of {link.modified_by}, owned by {link.owner_uuid}, to {link.head_uuid} "
            f"{'would be' if args.dry_run else 'is to be'} deleted"
        )
    if args.dry_run or args.yes or not others:
        return
    question = f"Delete {len(others)} {'link' if len(others) == 1 else 'links'} of other users? [y/N] "
    if sys.stdin is None or not sys.stdin.isatty():
        raise NotConfirmed("links of other users would be deleted. Give --yes if they are to be, or ask their owners.")
    print(question, end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise NotConfirmed("nothing was deleted or written.")


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print the answer as JSON, for programs")


def without_local(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The value of ``--local`` ("" without a folder, None if it is not given), and the other arguments.

    Taken out before parsing, wherever it stands: ``--local IMAGE`` must not swallow the image.
    """
    rest: list[str] = []
    local: str | None = None
    for place, argument in enumerate(arguments):
        if argument == "--":
            return local, rest + list(arguments[place:])
        option, _, folder = argument.partition("=")
        if option == "--local":
            local = folder
        else:
            rest.append(argument)
    return local, rest


def without_telling(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Return how much is to be told ("", "quiet", "verbose" or "debug"), and the other arguments.

    Where several options say it, the one that has most told counts.
    """
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    given = {_TELLING[argument] for argument in arguments[:end] if argument in _TELLING}
    rest = [argument for argument in arguments[:end] if argument not in _TELLING]
    return next((it for it in ("debug", "verbose", "quiet") if it in given), ""), rest + list(arguments[end:])


def progress_for(args: argparse.Namespace) -> Progress:
    """The user's view of progress: a bar on a terminal, lines elsewhere and beside a log, warnings if quiet."""
    from ..local import progress

    told = getattr(args, "telling", "")
    if told == "quiet":
        return progress.Quiet(sys.stderr)
    return progress.Lines(sys.stderr) if told else progress.progress_on()


@contextmanager
def cluster(args: argparse.Namespace) -> Iterator[Cluster]:
    """The cluster that the options mean: the local site while the block lasts, or the configured one."""
    from ..arvados.client import Cluster

    local: str | None = args.local
    if getattr(args, "api", None) is not None:
        yield Cluster(args.api, retries=args.retries)
        return
    if local is not None and not getattr(args, "makes_site", False):
        _check_site(local)
    if local is None:
        with asking(args, "the cluster"):
            configured = Cluster.from_settings(retries=args.retries)
        yield configured
        return
    from ..api import open_cluster

    with open_cluster(local, retries=args.retries) as site:
        yield site


@contextmanager
def cluster_named(args: argparse.Namespace, name: str | None) -> Iterator[Cluster]:
    """The cluster of the settings file ``<name>.conf``; without a name as ``cluster`` has it."""
    from ..arvados.client import Cluster

    if name is None:
        with cluster(args) as found:
            yield found
    else:
        yield Cluster.from_settings_file(name, retries=args.retries)


def choice(
    args: argparse.Namespace, shown: Progress, *, insecure: bool | None = None, creds: str = "--creds"
) -> Choice:
    """The options about sources and destinations, as a Choice; ``insecure`` as they say unless given. ``creds`` is the
    option with the credentials for a registry."""
    from functools import partial

    from ..transports.names import Choice
    from . import registry_access

    return Choice(
        args.platform,
        insecure=args.insecure if insecure is None else insecure,
        credentials=registry_access.credentials_of(args, creds),
        access=registry_access.access_of(args),
        progress=shown,
        clusters=partial(cluster_named, args),
        trust=partial(trust, args, shown=shown),
    )


def _check_site(local: str) -> None:
    """Refuse a folder without a site: a verb that only reads must not make one."""
    from pathlib import Path

    from .. import site
    from ..errors import BadSettings
    from ..local.settings import expand_home
    from ..site.status import check_exists

    folder = expand_home(Path(local) if local else site.default_folder()).absolute()
    try:
        check_exists(folder)
    except BadSettings as error:
        option = f"--local={local}" if local else "--local"
        raise BadSettings(
            f"{folder} holds no site. The first image that is put there makes one, arv-docker ingest {option} IMAGE; "
            f"so does arv-docker site serve --dir {folder}.",
            detail=error.detail,
        ) from error


def asking(args: argparse.Namespace, what: str) -> AbstractContextManager[object]:
    """A step in which a cluster is asked ``what``: plain lines once it takes long; what draws bars is slow to load."""
    from ..local.progress import Lines, SilentProgress

    shown: Progress | None = getattr(args, "shown", None)
    if shown is None:
        shown = SilentProgress() if getattr(args, "telling", "") == "quiet" else Lines(sys.stderr)
    return shown.step(f"asking {what}", None)


def trust(args: argparse.Namespace, cluster: Cluster, shown: Progress) -> Trust:
    """Trust in those whose links are taken at their word: this user, the system, and those of the settings."""
    from ..arvados.trust import Trust

    readable = "trust_readable" in args and args.trust_readable  # not every verb that reads a cluster has the option
    if readable:
        shown.warn("--trust-readable: links are believed whoever wrote them; content is not read back")
    return Trust.from_settings(cluster, settings(args), readable=readable)


def settings(args: argparse.Namespace) -> Settings:  # noqa: ARG001 -- no option sets them yet
    """The settings of this program, as the environment and the settings file have them; raises BadSettings."""
    from ..local.settings import settings

    return settings()


def cache_folder(args: argparse.Namespace) -> Path:  # noqa: ARG001 -- no option names another one yet
    """The user's cache folder for images; raises DiskError if it cannot be made."""
    from ..store import tarballs

    return tarballs.cache_folder()


def engine(args: argparse.Namespace) -> Engine:
    """The engine that the options mean; raises NoEngine if it is not installed."""
    from ..engines.auto import Auto
    from ..engines.docker import Docker
    from ..engines.podman import Podman

    docker = partial(Docker, platform=getattr(args, "platform", None))
    engines: dict[str, Callable[[], Engine]] = {"docker": docker, "podman": Podman}
    if args.engine == "auto":
        return Auto(list(engines.values()), progress_for(args).say)
    return engines[args.engine]()


def engine_or_apptainer(args: argparse.Namespace) -> Engine | Apptainer:
    """The engine that the options mean; Apptainer where they say so, and for ``auto`` where there is no other."""
    from ..engines.apptainer import Apptainer
    from ..errors import NoEngine

    if args.engine == APPTAINER:
        return Apptainer()
    found = engine(args)
    if args.engine == "auto":
        try:
            found.version()
        except NoEngine as missing:
            try:
                apptainer = Apptainer()
            except NoEngine:
                raise missing from None
            progress_for(args).say(f"using {apptainer.name}")
            return apptainer
    return found


def is_of_the_cluster(error: ArvDockerError) -> bool:
    """Return whether an error is the cluster's and not an image's, so that the next image would fail as well."""
    if not isinstance(error, ClusterError) or isinstance(error, KeepError):
        return False
    return error.status is None or error.status == 401 or error.status >= 500


def hint_at_place(text: str) -> str:
    """A hint for a text that names no image: the file that it names, or the transport that it almost names."""
    import difflib
    from pathlib import Path

    from ..transports import names

    if Path(text).is_file():
        return f"{text} is a file here: write docker-archive:{text}, or oci-archive:{text}."
    near = difflib.get_close_matches(text.partition(":")[0], [*names.OURS, "keep"], 1, 0.8) if ":" in text else []
    return f"Did you mean {near[0]}:{'//' * (near[0] == 'docker')}?" if near else ""


def as_json(outcome: DataclassInstance) -> dict[str, object]:
    """The fields of a result, for ``print_json``: each by its name, or by the ``json`` of its metadata."""
    import dataclasses

    from ..model.image import Digest

    def plain(value: Any) -> object:
        return as_json(value) if dataclasses.is_dataclass(value) and not isinstance(value, type | Digest) else value

    return {
        field.metadata.get("json", field.name): plain(getattr(outcome, field.name))
        for field in dataclasses.fields(outcome)
    }


def print_json(document: object) -> None:
    """Print ``document`` on standard output, indented, keys as given; digests and paths as text."""
    import json

    # Half characters, as a file's name may have them, are written as JSON escapes by ``exit_code_of``.
    every_character = codecs.lookup(getattr(sys.stdout, "encoding", None) or "utf-8").name == "utf-8"
    print(json.dumps(document, indent=2, default=str, ensure_ascii=not every_character))


def exit_code_of(
    run: Callable[[], int],
    program: str,
    out: TextIO | None = None,
    err: TextIO | None = None,
    *,
    signals: bool = True,
    log: str | None = None,
) -> int:
    """Call ``run`` and return its exit code, or that of the error that ended it, which is printed on standard error.

    With ``log``, one of the levels of ``logs.shown``, this is a command of its own, whose log messages are shown.
    """
    out, err = out or sys.stdout, err or sys.stderr
    try:
        if signals:
            interrupt.raise_interrupts()
            _make_ready(out, err)
        code = run() if log is None else _run_with_log(run, log, err)
        if out is not None:  # as where it was closed
            out.flush()
        return code
    except ArvDockerError as error:
        from ..local.progress import printable

        print(printable(f"{program}: {error.message}"), file=err)
        for line in error.detail.splitlines():
            print(printable(f"  {line}"), file=err)
        return error.exit_code
    except KeyboardInterrupt:
        if not signals:
            raise  # signals are the calling program's
        print(f"{program}: interrupted", file=err)
        return INTERRUPTED
    except _TerminationRequest as signalled:
        print(f"{program}: terminated", file=err)
        return signalled.code
    except BrokenPipeError:
        # Who read our output has gone, for example head. Python would complain again at exit.
        if out is sys.stdout:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"{program}: {error}", file=err)
        return DiskError.exit_code


def _run_with_log(run: Callable[[], int], level: str, err: TextIO) -> int:
    from . import logs

    with logs.show_log(level, err):
        return run()


def _make_ready(*streams: TextIO) -> None:
    """Set up streams, exit and signals for a command, which is no business of ours in a program that calls us."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):  # names come from strangers, and few locales have all characters
            stream.reconfigure(errors="backslashreplace")
    # At exit Python would look for garbage in all that the SDK is made of: a tenth of a short command's time.
    atexit.register(gc.freeze)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup leaves it
            signal.signal(number, _terminate)


class _TerminationRequest(BaseException):
    """A signal's request to end; passes through whatever handles errors."""

    def __init__(self, number: int) -> None:
        self.code = 128 + number


def _terminate(number: int, _frame: FrameType | None) -> None:
    raise _TerminationRequest(number)
