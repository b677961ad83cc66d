# SPDX-License-Identifier: Apache-2.0
"""``arv-docker site``: serve the embedded site, print its address and its content."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from .. import cli, site
from ..errors import ContentError, UsageError
from ..local.settings import expand_home

_EPILOG = """\
examples:
  arv-docker site serve                 serve the site, until Ctrl-C
  arv-docker site status --check        what it holds, and if all of it is well
  arv-docker site user create ann       another user, who gets her own token
  arv-docker site gc                    remove blocks that nothing needs

  # use it with any Arvados client
  eval "$(arv-docker site env)"; arv-ls UUID

"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the commands below ``site``."""
    _describe(
        parser,
        "A small Arvados on one machine: API and Keep in one folder. "
        "Only programs on this machine reach it, unless it is told otherwise.",
        _EPILOG,
    )
    commands = parser.add_subparsers(dest="site_command", metavar="COMMAND", required=True)

    serve = commands.add_parser("serve", help="serve the site over HTTPS on this machine, until Ctrl-C")
    _describe(
        serve,
        "Serve the site over HTTPS until Ctrl-C, on the loopback interface or where --host says. "
        "The folder is created on first use.",
        "example:\n  arv-docker site serve --dir ~/images --port 8443\n",
    )
    _add_folder(serve)
    serve.add_argument("--port", type=_port, default=0, metavar="N", help="port to listen on (default 0: any free one)")
    serve.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="NAME",
        help="name or address to listen on, under which clients know this machine (default 127.0.0.1)",
    )
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
        "Show what the site holds and whether it is served. With --check, read every block and compare it with its "
        "name, and every collection with its blocks; exit code 5 where something is wrong.",
        "example:\n  arv-docker site status --json | jq .free_bytes\n",
    )
    _add_folder(status)
    status.add_argument("--check", action="store_true", help="look for damage in records and blocks")
    status.add_argument("--quick", action="store_true", help="check less: with --check only a sample of the blocks")
    cli.add_json_option(status)
    status.set_defaults(site_function=_status)

    gc = commands.add_parser("gc", help="remove blocks that nothing needs any more")
    _describe(
        gc,
        "Remove the blocks that no collection names, not even one in the trash, once every signature for them has "
        "ended (two weeks). Safe while the site is in use.",
        "example:\n  arv-docker site gc --dry-run\n",
    )
    _add_folder(gc)
    gc.add_argument("--dry-run", action="store_true", help="say what would go; do nothing")
    gc.set_defaults(site_function=_gc)
    _configure_users(commands.add_parser("user", help="add users, make tokens for them"))


def _configure_users(parser: argparse.ArgumentParser) -> None:
    example = "example:\n  arv-docker site user create ann && arv-docker site user token ann\n"
    _describe(parser, "Add users and make tokens. A user shares a project by a permission link.", example)
    commands = parser.add_subparsers(dest="user_command", metavar="COMMAND", required=True)
    create = commands.add_parser("create", help="add a user")
    _describe(create, "Add a user and print its UUID. It gets no token yet.", example)
    create.add_argument("--admin", action="store_true", help="the user may do everything")
    token = commands.add_parser("token", help="print a new token for a user")
    _describe(token, "Print a new token for a user, the one named 'system' being the site itself.", example)
    token.add_argument(
        "--scope",
        action="append",
        metavar="TEXT",
        help="let the token do this alone, as 'GET /arvados/v1/links', or with a slash at its end what is below; "
        "several times for more",
    )
    token.add_argument("--days", type=_days, metavar="N", help="let the token end after so many days")
    for command in (create, token):
        command.add_argument("name", help="name of the user")
    users = commands.add_parser("list", help="list the users")
    _describe(users, "List the users with the number of their valid tokens.", example)
    cli.add_json_option(users)
    for command, function in ((create, _create_user), (token, _token), (users, _list_users)):
        _add_folder(command)
        command.set_defaults(site_function=function)


def run(args: argparse.Namespace) -> int:
    """Run the command below ``site`` that was asked for; raises ArvDockerError."""
    function: Callable[[argparse.Namespace], int] = args.site_function
    return function(args)


def _serve(args: argparse.Namespace) -> int:
    folder = _folder(args)

    def ready(address: str) -> None:
        option = f" --dir {shlex.quote(str(args.dir))}" if args.dir else ""
        print(f"Serving {folder} at https://{address}/ (Ctrl-C stops it).", file=sys.stderr)
        print(f'In another shell: eval "$(arv-docker site env{option})"', file=sys.stderr, flush=True)

    site.serve(folder, args.host, args.port, ready)
    return 0


def _env(args: argparse.Namespace) -> int:
    from ..site.status import client_settings

    found = client_settings(_folder(args))
    print(f"export ARVADOS_API_HOST={shlex.quote(found.api_host)}")
    print(f"export ARVADOS_API_TOKEN={shlex.quote(found.api_token)}")
    print(f"export SSL_CERT_FILE={shlex.quote(str(found.ca_bundle))}")
    return 0


def _status(args: argparse.Namespace) -> int:
    from ..site.status import existing, status
    from ..site.upkeep import problems

    if args.quick and not args.check:
        raise UsageError("--quick goes with --check.")
    found = status(_folder(args))
    wrong: list[str] = []
    if args.check:
        with existing(_folder(args)) as opened:
            wrong = list(problems(opened, quick=args.quick))
    if args.json:
        print(json.dumps(asdict(found) | ({"problems": wrong} if args.check else {}), default=str))
    else:
        print(f"folder          {found.folder}")
        print(f"cluster         {found.cluster_id}")
        print(f"schema version  {found.schema_version}")
        print(f"records         {found.collections} collections, {found.links} links, {found.projects} projects")
        print(f"blocks          {found.blocks} ({found.bytes} bytes)")
        print(f"free on disk    {found.free_bytes} bytes")
        print(f"served at       {f'https://{found.address}/' if found.address else '(not running)'}")
        if args.check:
            print("\n".join(["problems:", *wrong]) if wrong else "problems        none found")
    if wrong:
        raise ContentError(f"The site in {found.folder} has {len(wrong)} problems, listed above.")
    return 0


def _gc(args: argparse.Namespace) -> int:
    from ..site.status import existing
    from ..site.upkeep import collect_garbage

    with existing(_folder(args)) as opened:
        found = collect_garbage(opened, dry_run=args.dry_run)
    print(f"{'would remove' if args.dry_run else 'removed'} {found.blocks} blocks ({found.bytes} bytes)")
    return 0


def _create_user(args: argparse.Namespace) -> int:
    from ..site.api import users
    from ..site.status import existing

    with existing(_folder(args)) as opened:
        print(users.create(opened.database, opened.settings, args.name, is_admin=args.admin))
    return 0


def _token(args: argparse.Namespace) -> int:
    from ..site.api import users
    from ..site.status import existing

    with existing(_folder(args)) as opened:
        print(users.new_token(opened.database, opened.settings, args.name, args.days, args.scope or ("all",)))
    return 0


def _list_users(args: argparse.Namespace) -> int:
    from ..site.api import users
    from ..site.status import existing

    with existing(_folder(args)) as opened:
        found = users.list_users(opened.database)
    if args.json:
        print(json.dumps([asdict(user) for user in found]))
        return 0
    for user in found:
        print(f"{user.uuid}  {user.username:<16}  {user.tokens} tokens{'  administrator' if user.is_admin else ''}")
    return 0


def _folder(args: argparse.Namespace) -> Path:
    folder: Path | None = args.dir
    return expand_home(folder or site.default_folder()).absolute()


def _add_folder(parser: argparse.ArgumentParser) -> None:
    cli.add_telling_options(parser)
    parser.add_argument(
        "--dir",
        type=cli.as_folder,
        metavar="FOLDER",
        help="the folder of the site (default: $ARV_DOCKER_SITE, else arv-docker/site in $XDG_DATA_HOME "
        "or ~/.local/share)",
    )


def _describe(parser: argparse.ArgumentParser, description: str, epilog: str) -> None:
    parser.description = description
    parser.epilog = epilog
    parser.formatter_class = cli.HelpFormatter


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 1 << 16):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: 0 to 65535")
    return int(text)


def _days(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 36500):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of days: 1 to 36500")
    return int(text)
