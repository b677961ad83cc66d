# SPDX-License-Identifier: Apache-2.0
"""``arv-docker status``: the state of a name: if the cluster takes it for the image that this user stored."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .. import cli
from ..errors import NoSuchImage
from ..local import progress
from ..model.reference import Reference
from . import several

if TYPE_CHECKING:
    from ..images.tags import Status

_ABSENT = 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.epilog = (
        "Prints ready, shadowed (the name means another image, exit code 8) or foreign (you stored none of\n"
        "that name, somebody else did), and the collection that the name means; absent (exit code 1) if there is\n"
        "none. With --wait it asks less and less often, returns when it is ready, and ends with exit code 10 if it is\n"
        "not in time.\n\n"
        f"{several.SEVERAL}\n\n"
        "examples:\n  arv-docker status app:latest\n  arv-docker status app:latest --wait --timeout 60"
    )
    several.add_images_argument(parser, "NAME[:TAG]", "the name to look up")
    parser.add_argument("--wait", action="store_true", help="return when the name means what you stored")
    cli.add_timeout_option(parser)
    cli.add_trust_option(parser)
    cli.add_cluster_options(parser)
    cli.add_wide_option(parser)
    cli.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Print the states of the names, each by itself."""
    return several.run_each(args, _print_status)


def _print_status(args: argparse.Namespace) -> int:
    """Print the state of the name."""
    name = Reference.parse(args.name)
    found = _status_of(args, name, cli.progress_for(args))
    if args.json:
        several.print_document(args, _document(name, found))
    elif found is None:
        print(f"absent  {name.link_name}")
    else:
        line = f"{found.state}  {found.name}  {found.uuid}  {found.pdh}  linked by {found.link.modified_by}"
        cli.print_lines(args, [line])
    if found is None:
        return _ABSENT
    return cli.SHADOWED if found.state == "shadowed" else 0


def _status_of(args: argparse.Namespace, name: Reference, shown: progress.Progress) -> Status | None:
    """The status of the name, None for an unknown name; with ``--wait`` once it is ready. Warnings go to ``shown``."""
    from ..images import tags

    step = f"waiting until {name.link_name} is ready" if args.wait else f"asking for {name.link_name}"
    with cli.cluster(args) as cluster, shown.step(step, None):
        trust = cli.trust(args, cluster, shown)
        try:
            found = tags.wait(cluster, name, trust, args.timeout) if args.wait else tags.status(cluster, name, trust)
        except NoSuchImage:
            return None
    for warning in found.warnings:
        shown.warn(warning)
    return found


def _document(name: Reference, status: Status | None) -> dict[str, object]:
    """The document of a name's status, for programs."""
    return {
        "state": status.state if status else "absent",
        "name": name.link_name,
        "uuid": status.uuid if status else None,
        "pdh": status.pdh if status else None,
        "link_uuid": status.link.uuid if status else None,
        "linked_by": status.link.modified_by if status else None,
        "stored": status.stored if status else (),
        "warnings": status.warnings if status else (),
    }
