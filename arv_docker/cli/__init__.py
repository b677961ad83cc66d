# SPDX-License-Identifier: Apache-2.0
"""The commands. One module for each verb of ``arv-docker``, with ``configure`` and ``run``.

Here is what they share: the cluster, the engine and the settings that their options mean, and JSON. Only this package
knows of the embedded site and of standard output.
"""

from __future__ import annotations

from . import interrupt, memory  # first of all: Ctrl-C, and too little memory, while the others are imported

# isort: split
import argparse
import codecs
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import ArvDockerError, ClusterError
from .options import (
    APPTAINER,
    ENGINES,
    HelpFormatter,
    add_cluster_options,
    add_command,
    add_deletion_options,
    add_engine_option,
    add_insecure_option,
    add_json_option,
    add_login_options,
    add_platform_option,
    add_source_options,
    add_telling_options,
    add_timeout_option,
    add_trust_option,
    add_wide_option,
    as_folder,
    without_local,
    without_telling,
)
from .program import EXIT_CODES, INTERRUPTED, exit_code_of

if TYPE_CHECKING:
    from pathlib import Path

    from _typeshed import DataclassInstance

    from ..arvados.client import Cluster, Link
    from ..arvados.trust import Trust
    from ..engines import Engine
    from ..engines.apptainer import Apptainer
    from ..local.progress import Progress
    from ..local.settings import Settings
    from ..store.cache import CacheFolder
    from ..transports.names import Choice


__all__ = [
    "APPTAINER",
    "ENGINES",
    "EXIT_CODES",
    "INTERRUPTED",
    "SHADOWED",
    "HelpFormatter",
    "add_cluster_options",
    "add_command",
    "add_deletion_options",
    "add_engine_option",
    "add_insecure_option",
    "add_json_option",
    "add_login_options",
    "add_platform_option",
    "add_source_options",
    "add_telling_options",
    "add_timeout_option",
    "add_trust_option",
    "add_wide_option",
    "as_folder",
    "as_json",
    "asking",
    "cache_folder",
    "choice",
    "cluster",
    "cluster_named",
    "confirm_deletion",
    "engine",
    "engine_or_apptainer",
    "exit_code_of",
    "hint_at_place",
    "interrupt",
    "is_of_the_cluster",
    "memory",
    "print_json",
    "print_lines",
    "print_table",
    "progress_for",
    "settings",
    "trust",
    "without_local",
    "without_telling",
]

#: The exit code when a name means something else to the cluster than was wanted.
SHADOWED = 8


def confirm_deletion(
    args: argparse.Namespace, cluster: Cluster, links: Sequence[Link], shown: Progress
) -> frozenset[str]:
    """Name the links that would be deleted, and ask where some are other users'; raise NotConfirmed if it may not be.

    Returns the UUIDs of those that may be deleted.

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
    confirmed = frozenset(link.uuid for link in links)
    if args.dry_run or args.yes or not others:
        return confirmed
    question = f"Delete {len(others)} {'link' if len(others) == 1 else 'links'} of other users? [y/N] "
    if sys.stdin is None or not sys.stdin.isatty():
        raise NotConfirmed("links of other users would be deleted. Give --yes if they are to be, or ask their owners.")
    print(question, end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise NotConfirmed("nothing was deleted or written.")
    return confirmed


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

    if (shared := getattr(args, "shared", None)) is not None:  # by several images
        if "cluster" not in shared:
            alone = argparse.Namespace(**{name: value for name, value in vars(args).items() if name != "shared"})
            shared["cluster"] = shared["kept"].enter_context(cluster(alone))
        yield shared["cluster"]
        return
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
    args: argparse.Namespace,
    shown: Progress,
    *,
    insecure: bool | None = None,
    creds: str = "--creds",
    only_shown: bool = False,
) -> Choice:
    """The options about sources and destinations, as a Choice; ``insecure`` as they say unless given. ``creds`` is the
    option with the credentials for a registry. ``only_shown``: the image is not written anywhere."""
    from functools import partial

    from ..transports.names import Choice
    from . import registry_access

    return Choice(
        args.platform,
        insecure=args.insecure if insecure is None else insecure,
        credentials=registry_access.credentials_of(args, creds),
        access=registry_access.access_of(args),
        progress=shown,
        settings=settings(args),
        cache=user_cache(args),
        clusters=partial(cluster_named, args),
        trust=partial(trust, args, shown=shown),
        only_shown=only_shown,
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
    """A step in which a cluster is asked ``what``: plain lines if it takes long, for bars are slow to load."""
    from ..local.progress import Lines, SilentProgress

    shown: Progress | None = getattr(args, "shown", None)
    if shown is None:
        shown = SilentProgress() if getattr(args, "telling", "") == "quiet" else Lines(sys.stderr)
    return shown.step(f"asking {what}", None)


def trust(args: argparse.Namespace, cluster: Cluster, shown: Progress) -> Trust:
    """Trust in this user, the system user, and the users of the settings."""
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


def user_cache(args: argparse.Namespace) -> CacheFolder:
    """The user's cache, whose folder is made when it is needed."""
    from ..store.cache import CacheFolder

    return CacheFolder(partial(cache_folder, args))


def engine(args: argparse.Namespace) -> Engine:
    """The engine that the options mean; raises NoEngine if it is not installed."""
    from ..engines.auto import Auto
    from ..engines.docker import Docker
    from ..engines.podman import Podman

    timeout = settings(args).engine_timeout
    engines: dict[str, Callable[[], Engine]] = {
        "docker": partial(Docker, platform=getattr(args, "platform", None), timeout=timeout),
        "podman": partial(Podman, timeout=timeout),
    }
    if args.engine == "auto":
        return Auto(list(engines.values()), progress_for(args).say)
    return engines[args.engine]()


def engine_or_apptainer(args: argparse.Namespace) -> Engine | Apptainer:
    """The engine that the options mean; Apptainer where they say so, and for ``auto`` where there is no other."""
    from ..engines.apptainer import Apptainer
    from ..errors import NoEngine

    timeout = settings(args).engine_timeout
    if args.engine == APPTAINER:
        return Apptainer(timeout=timeout)
    found = engine(args)
    if args.engine == "auto":
        try:
            found.version()
        except NoEngine as missing:
            try:
                apptainer = Apptainer(timeout=timeout)
            except NoEngine:
                raise missing from None
            progress_for(args).say(f"using {apptainer.name}")
            return apptainer
    return found


def print_lines(args: argparse.Namespace, lines: Iterable[str]) -> None:
    """Print lines for a person: on a terminal, without ``--wide``, those that are too long go on in the next."""
    from . import tables

    print("\n".join(tables.fill_lines(lines, tables.width_for(args))))


def print_table(args: argparse.Namespace, rows: Sequence[Sequence[str]], elastic: Sequence[int]) -> None:
    """Print a table with its head: on a terminal, without ``--wide``, the ``elastic`` columns give way."""
    from . import tables

    print("\n".join(tables.lines_of(rows, tables.width_for(args), elastic)))


def is_of_the_cluster(error: ArvDockerError) -> bool:
    """Return whether an error is the cluster's and not an image's, so that the next image would fail as well."""
    return isinstance(error, ClusterError) and error.is_outage


def hint_at_place(text: str) -> str:
    """A hint for a text that names no image: a file of that name, or the transport with nearly that name."""
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
    text = json.dumps(document, indent=2, default=str, ensure_ascii=not every_character)
    if not text.replace("\n", "").isprintable():  # JSON need not escape all that moves a cursor or turns writing
        text = "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
    print(text)
