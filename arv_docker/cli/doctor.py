# SPDX-License-Identifier: Apache-2.0
"""``arv-docker doctor``: check commands, cluster, engine, cache and tokens."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass

from .. import cli
from ..errors import ArvDockerError
from ..local import installation, progress
from ..local.disk import disk_errors
from ..local.progress import size_text

#: A block that is stored and read to see that it can be done; the cluster collects it as garbage.
_PROBE = b"arv-docker doctor\n"


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding of one check: good or bad, and what was seen or what to do."""

    what: str
    well: bool
    says: str


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.epilog = (
        "Ends with exit code 0 if all is well, else with that of the first check that failed.\n\n"
        "example:\n  arv-docker doctor --local"
    )
    cli.add_engine_option(parser, cli.APPTAINER)
    parser.set_defaults(makes_site=True)
    cli.add_cluster_options(parser)
    cli.add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Look at each thing and print what was found."""
    checks: dict[str, Callable[[argparse.Namespace], str]] = {
        "command": _command,
        "engine": _engine,
        "cache": _cache,
        "cluster": _cluster,
    }
    findings, code = [], 0
    for what, check in checks.items():
        try:
            findings.append(Finding(what, True, check(args)))
        except ArvDockerError as error:
            findings.append(Finding(what, False, str(error)))
            code = code or error.exit_code
    if args.json:
        cli.print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            print(
                f"{finding.what:8} {'ok ' if finding.well else 'BAD'}  "
                + finding.says.replace("\n", "\n              ")
            )
    return code


def _command(_: argparse.Namespace) -> str:
    found = installation.command_on_path()
    if found is None:
        raise ArvDockerError("no arv-keepdocker is on PATH. Add the scripts of this environment to it.")
    owner, environment = installation.owner_of(found), installation.Environment.at()
    if owner == "arvados" and environment.replaces_module and found == environment.command:
        return f"{found} is the command of the Arvados SDK, and runs this package's module"
    if owner != "arv-docker":
        raise ArvDockerError(
            f"{found} is the command of {'the Arvados SDK' if owner == 'arvados' else 'something else'}. "
            "arv-docker install-command puts this package's in its place."
        )
    module = "; so is import arvados.commands.keepdocker" if environment.replaces_module else ""
    return f"{found} is this package's{module}"


def _engine(args: argparse.Namespace) -> str:
    from ..model.manifest import processor_of

    engine = cli.engine_or_apptainer(args)
    platform = engine.platform()
    return f"{engine.name} {engine.version()} on {platform} ({processor_of(platform)})"


def _cache(args: argparse.Namespace) -> str:
    from ..store.content_store import entries_in

    folder = cli.cache_folder(args)
    entries_in(folder)
    with disk_errors(folder):
        probe = folder / ".probe"
        probe.touch()
        probe.unlink()
    return f"{folder}, {size_text(shutil.disk_usage(folder).free)} free"


def _cluster(args: argparse.Namespace) -> str:
    from ..ingest.options import Options
    from ..ingest.preflight import Preflight

    with cli.cluster(args) as cluster:
        Preflight(cluster, Options(cli.cache_folder(args)), progress.SilentProgress()).check()
        formats = ", ".join(cluster.image_formats)
        cluster.get_block(cluster.put_block(_PROBE))
        return f"user {cluster.user_uuid}, image formats {formats}; blocks can be stored and read"
