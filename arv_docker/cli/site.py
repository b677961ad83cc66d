# SPDX-License-Identifier: Apache-2.0
"""``arv-docker site``: serve the embedded site, say how to reach it, show what it holds."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from .. import site

HELP = "the embedded single-machine Arvados: serve it, reach it, look at it"

_EPILOG = """\
examples:
  arv-docker site serve                       serve the site, until Ctrl-C
  eval "$(arv-docker site env)"; arv-ls UUID  use it with any Arvados client
  arv-docker site status                      what it holds
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the commands below ``site``."""
    _describe(
        parser,
        "A small Arvados for one person on one machine: API and Keep in one folder. "
        "Only programs on this machine reach it.",
        _EPILOG,
    )
    commands = parser.add_subparsers(dest="site_command", metavar="COMMAND", required=True)

    serve = commands.add_parser("serve", help="serve the site over HTTPS on this machine, until Ctrl-C")
    _describe(
        serve,
        "Serve the site over HTTPS on the loopback interface until Ctrl-C. The folder is created on first use.",
        "example:\n  arv-docker site serve --dir ~/images --port 8443\n",
    )
    _add_folder(serve)
    serve.add_argument("--port", type=_port, default=0, metavar="N", help="port to listen on (default 0: any free one)")
    serve.set_defaults(site_function=_serve)

    env = commands.add_parser("env", help="print the settings that make Arvados clients use the running site")
    _describe(
        env,
        "Print shell commands that make every Arvados client started afterwards use the running site. "
        "They contain the site's secret token.",
        'example:\n  eval "$(arv-docker site env)"\n',
    )
    _add_folder(env)
    env.set_defaults(site_function=_env)

    status = commands.add_parser("status", help="show what the site holds and whether it is served")
    _describe(
        status,
        "Show what the site holds and whether it is served.",
        "example:\n  arv-docker site status --json | jq .free_bytes\n",
    )
    _add_folder(status)
    status.add_argument("--json", action="store_true", help="print one JSON object")
    status.set_defaults(site_function=_status)


def run(args: argparse.Namespace) -> int:
    """Do what was asked; raises ArvDockerError."""
    function: Callable[[argparse.Namespace], int] = args.site_function
    return function(args)


def _serve(args: argparse.Namespace) -> int:
    folder = _folder(args)

    def ready(address: str) -> None:
        option = f" --dir {shlex.quote(str(args.dir))}" if args.dir else ""
        print(f"Serving {folder} at https://{address}/ (Ctrl-C stops it).", file=sys.stderr)
        print(f'In another shell: eval "$(arv-docker site env{option})"', file=sys.stderr, flush=True)

    site.serve(folder, args.port, ready)
    return 0


def _env(args: argparse.Namespace) -> int:
    from ..site.status import client_settings

    found = client_settings(_folder(args))
    print(f"export ARVADOS_API_HOST={shlex.quote(found.api_host)}")
    print(f"export ARVADOS_API_TOKEN={shlex.quote(found.api_token)}")
    print(f"export SSL_CERT_FILE={shlex.quote(str(found.ca_bundle))}")
    return 0


def _status(args: argparse.Namespace) -> int:
    from ..site.status import status

    found = status(_folder(args))
    if args.json:
        print(json.dumps(asdict(found), default=str))
        return 0
    print(f"folder          {found.folder}")
    print(f"cluster         {found.cluster_id}")
    print(f"schema version  {found.schema_version}")
    print(f"records         {found.collections} collections, {found.links} links, {found.projects} projects")
    print(f"blocks          {found.blocks} ({found.bytes} bytes)")
    print(f"free on disk    {found.free_bytes} bytes")
    print(f"served at       {f'https://{found.address}/' if found.address else '(not running)'}")
    return 0


def _folder(args: argparse.Namespace) -> Path:
    folder: Path | None = args.dir
    return (folder or site.default_folder()).expanduser().absolute()


def _add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dir",
        type=Path,
        metavar="FOLDER",
        help="the site's folder (default: $ARV_DOCKER_SITE, else arv-docker/site in $XDG_DATA_HOME or ~/.local/share)",
    )


def _describe(parser: argparse.ArgumentParser, description: str, epilog: str) -> None:
    parser.description = description
    parser.epilog = epilog
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 1 << 16):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: 0 to 65535")
    return int(text)
