# SPDX-License-Identifier: Apache-2.0
"""``arv-docker cache``: list, verify and remove the files that are kept on this machine."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import unquote

from .. import cli
from ..errors import NotVerified
from ..local.progress import size_text

if TYPE_CHECKING:
    from ..maintenance import Cache, CacheItem

_EPILOG = """\
Tarballs that an engine saved stay here until their image is in Keep, or for good with --keep-tarball; those of a
stage, copy or folder update that was interrupted serve the next try, or go with gc. Images that are kept by their
content stay until they are removed. The folder is arvados/docker in $XDG_CACHE_HOME (or ~/.cache).

examples:
  arv-docker cache list
  arv-docker cache gc --older-than 30
"""
_DAY = 86400


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the commands below ``cache``."""
    parser.epilog = _EPILOG
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    listing = _command(
        commands, "list", _list, "list what is kept, with sizes and ages", "what was used last comes first"
    )
    cli.add_wide_option(listing)
    _command(
        commands,
        "verify",
        _verify,
        "read everything and compare it with its digests",
        "exit code 5 if something is bad",
    )
    gc = _command(
        commands,
        "gc",
        _gc,
        "remove what cannot serve again, and what killed commands left",
        "what another command works on stays",
    )
    gc.add_argument("--older-than", type=_days, metavar="DAYS", help="also what was not used for so many days")
    _command(commands, "clear", _clear, "remove everything", "what another command works on stays")


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    function: Callable[[argparse.Namespace, Cache], int],
    summary: str,
    more: str,
) -> argparse.ArgumentParser:
    command = cli.add_command(commands, name, summary, f"example:\n  arv-docker cache {name}", f"; {more}.")
    cli.add_json_option(command)
    command.set_defaults(cache_function=function)
    return command


def run(args: argparse.Namespace) -> int:
    """Run the command below ``cache``."""
    from ..maintenance import Cache

    return int(args.cache_function(args, Cache(cli.cache_folder(args), cli.progress_for(args))))


def _list(args: argparse.Namespace, cache: Cache) -> int:
    found = cache.list()
    if args.json:
        cli.print_json([_as_json(it) for it in found])
        return 0
    rows = [("KIND", "IMAGE ID", "PLATFORM", "SIZE", "USED", "NAMES")]
    for it in found:
        image_id = it.image_id.short_hex if it.image_id else "<unknown>"
        names = ", ".join(_names(it)) if it.usable else "<unusable>"
        rows.append((it.kind, image_id, str(it.platform or "<unknown>"), size_text(it.size), _ago(it.age), names))
    cli.print_table(args, rows, [5])
    print(f"{len(found)} in all, {size_text(sum(it.size for it in found))}")
    return 0


def _verify(args: argparse.Namespace, cache: Cache) -> int:
    checked = []
    for it, problem in cache.verify():
        checked.append((it, problem))
        if not args.json:
            what = it.image_id.short_hex if it.image_id else it.path.name
            print(f"{'BAD' if problem else 'ok '}  {it.kind:7}  {what}", flush=True)
    if args.json:
        cli.print_json([_as_json(it) | {"problem": problem} for it, problem in checked])
    if bad := [problem for _, problem in checked if problem]:
        raise NotVerified(f"{len(bad)} of {len(checked)} archives in the cache are bad:", detail="\n".join(bad))
    return 0


def _gc(args: argparse.Namespace, cache: Cache) -> int:
    days = args.older_than
    return _freed_words(args, cache.gc(None if days is None else days * _DAY))


def _clear(args: argparse.Namespace, cache: Cache) -> int:
    return _freed_words(args, cache.clear())


def _freed_words(args: argparse.Namespace, count: int) -> int:
    if args.json:
        cli.print_json({"removed_bytes": count})
    else:
        print(f"{size_text(count)} removed")
    return 0


def _days(text: str) -> float:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days")
    return float(text)


def _ago(seconds: float) -> str:
    for unit, length in (("days", _DAY), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit} ago"
    return "just now" if seconds < 60 else "a minute ago"


def _as_json(kept: CacheItem) -> dict[str, object]:
    image_id = str(kept.image_id) if kept.image_id else None
    platform = str(kept.platform) if kept.platform else None
    return dataclasses.asdict(kept) | {"image_id": image_id, "platform": platform, "names": _names(kept)}


def _names(kept: CacheItem) -> list[str]:
    return [unquote(name.removesuffix(".tar")) for name in kept.names]
