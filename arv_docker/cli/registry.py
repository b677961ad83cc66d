# SPDX-License-Identifier: Apache-2.0
"""``arv-docker registry``: images in a registry, published under names that never mean another image."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from .. import cli, progress
from ..errors import NotReady, UsageError
from ..progress import Advance, Progress, Silent, printable
from ..reference import ImageId, Reference, parse_name, references_in

if TYPE_CHECKING:
    from ..publish import Registry
    from ..registry.credentials import Provider
    from ..transports import OpenedImage

_EPILOG = """\
REGISTRY is HOST[:PORT][/FOLDER]; names are REPOSITORY:TAG in it. Credentials are those of Docker's and Podman's
configuration (docker login), unless an option says where else they come from. Nothing is written there.

examples:
  arv-docker registry push --insecure localhost:5000 busybox:latest
  arv-docker registry push registry.example/team docker-archive:app.tar --wait
  arv-docker registry images registry.example
"""

_KEEP = "keep:"
_ABSENT = 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the commands below ``registry``."""
    parser.epilog = _EPILOG
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    push = _command(
        commands,
        "push",
        _push,
        "push an image",
        "Prints the image's name in the registry: NAME, or one made of the image's own name and ID that can never\n"
        "mean another image, such as hello:1-b038788ddb. Layers that the registry has are not sent.\n\n"
        "examples:\n  arv-docker registry push --insecure localhost:5000 hello:1\n"
        "  arv-docker registry push registry.example oci-archive:app.tar tools/app:2 --wait",
    )
    push.add_argument(
        "image", metavar="IMAGE", help="an image of the engine, keep:NAME, or docker-archive:FILE and the like"
    )
    push.add_argument("name", nargs="?", metavar="NAME", help="the name to give it, exactly")
    push.add_argument("--wait", action="store_true", help="return when the image can be used")
    push.add_argument("--uncompressed", action="store_true", help="push layers as they are, not compressed with gzip")
    push.add_argument("--quiet", "-q", action="store_true", help="no progress, only the name")
    push.add_argument("--platform", metavar="OS/ARCH", help="of several images of a source, the one for this platform")
    cli.add_engine_option(push)
    cli.add_cluster_options(push)
    for name, function, summary, text in (
        ("images", _images, "list the names of all images", ""),
        ("repos", _repos, "list the repositories", ""),
        ("token", _token, "print the secret with which you may use the registry now", ""),
    ):
        _command(commands, name, function, summary, f"{text}example:\n  arv-docker registry {name} registry.example")
    create = _command(
        commands,
        "create",
        _create,
        "create a repository",
        "Where a registry has repositories with the first push, nothing is to be done.\n\n"
        "example:\n  arv-docker registry create registry.example tools/app\n"
        "  arv-docker registry create registry.example app --create-command 'aws ecr create-repository "
        "--repository-name'",
    )
    create.add_argument("repository", metavar="REPOSITORY", help="its name")
    status = _command(
        commands,
        "status",
        _status,
        "say whether an image can be used",
        "Prints ready, pending (exit code 10), or absent (exit code 1). Ready does not mean that it is the newest\n"
        "image of that name: a unique name does.\n\n"
        "example:\n  arv-docker registry status registry.example app:1-b038788ddb",
    )
    wait = _command(
        commands,
        "wait",
        _wait,
        "wait until an image can be used",
        "Asks less and less often. Exit code 10 if it is not ready in time.\n\n"
        "example:\n  arv-docker registry wait registry.example app:1-b038788ddb --timeout 60",
    )
    delete = _command(
        commands,
        "delete",
        _delete,
        "take an image away",
        "Prints deleted, or absent (exit code 1). A registry that deletes only an image with all its names is not\n"
        "asked to while it has others.\n\nexample:\n  arv-docker registry delete registry.example app:1-b038788ddb",
    )
    for command in (status, wait, delete):
        command.add_argument("name", metavar="NAME", help="REPOSITORY:TAG")
    for command in (push, wait):
        cli.add_timeout_option(command)


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    function: Callable[[argparse.Namespace, Registry], int],
    summary: str,
    epilog: str,
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_argument("registry", metavar="REGISTRY", help="HOST[:PORT][/FOLDER]")
    command.add_argument("--insecure", action="store_true", help="without TLS, for a registry on this machine alone")
    command.add_argument("--username", default="", metavar="NAME", help="the name that goes with the secret")
    command.add_argument("--password-env", metavar="VARIABLE", help="a variable of the environment has the secret")
    command.add_argument(
        "--password-command",
        metavar="COMMAND",
        help="a command prints the secret, or JSON with token, username and expires_in; run again when that is over",
    )
    command.add_argument("--credential-helper", metavar="NAME", help="docker-credential-NAME gives name and secret")
    command.add_argument(
        "--create-command", metavar="COMMAND", help="creates a repository that is missing; its name is put behind it"
    )
    command.add_argument(
        "--service", metavar="URL", help="the REST interface that looks after the registry, as Rescale's does"
    )
    command.add_argument("--project", metavar="ID", help="with --service: the project that the registry belongs to")
    command.add_argument("--service-token-env", metavar="VARIABLE", help="a variable has the service's API token")
    cli.add_json_option(command)
    command.set_defaults(registry_function=function)
    return command


def run(args: argparse.Namespace) -> int:
    """Runs the command below ``registry``."""
    with closing(_registry(args)) as registry:
        return int(args.registry_function(args, registry))


def _registry(args: argparse.Namespace) -> Registry:
    """The registry that the options mean, with what surrounds it."""
    from ..publish import Registry
    from ..registry.credentials import environment
    from ..registry.services import Plain, Project

    credentials = _credentials(args)
    if args.service is None:
        if args.project is not None or args.service_token_env is not None:
            raise UsageError("--project and --service-token-env go with --service.")
        service = partial(Plain, command=_words(args.create_command, "--create-command"))
        return Registry(args.registry, credentials, service=service, insecure=args.insecure)
    if args.project is None or args.service_token_env is None:
        raise UsageError("--service needs --project and --service-token-env.")
    if args.create_command is not None:
        raise UsageError("with --service the service creates repositories: leave out --create-command.")
    project = Project(args.service, args.project, environment(args.service_token_env, ""))
    return Registry(
        args.registry, credentials or project.credentials, service=lambda *_: project, insecure=args.insecure
    )


def _credentials(args: argparse.Namespace) -> Provider | None:
    """Where the options say that credentials come from; None for Docker's and Podman's configuration."""
    from ..publish import place
    from ..registry.credentials import command, environment, helper

    given = [args.password_env, args.password_command, args.credential_helper]
    if sum(it is not None for it in given) > 1:
        raise UsageError("give one of --password-env, --password-command and --credential-helper.")
    if args.credential_helper is not None:
        return helper(args.credential_helper, place(args.registry)[0])
    if args.password_env is not None:
        return environment(args.password_env, args.username)
    if args.password_command is not None:
        return command(_words(args.password_command, "--password-command"), args.username)
    if args.username:
        raise UsageError("--username needs its secret: --password-env or --password-command.")
    return None


def _words(text: str | None, option: str) -> list[str]:
    """A command's words, as a shell would split them; none if the option is not given."""
    try:
        words = shlex.split(text or "")
    except ValueError as error:
        raise UsageError(f"{option} {text!r} is not a command: {error}.") from None
    if text is not None and not words:
        raise UsageError(f"{option} names no command.")
    return words


# -- the commands --------------------------------------------------------------------------------


def _push(args: argparse.Namespace, registry: Registry) -> int:
    shown: Progress = Silent() if args.quiet else progress.on()
    with _opened(args, shown) as (image, called, tags):
        name = args.name or registry.name_of(image.config.digest, called, tags)
        sizes = getattr(image, "sizes", {})
        with shown.step(f"pushing to {registry.host}", sum(sizes.values()) or None) as advance:
            pushed = registry.push(image, name, advance, compress=not args.uncompressed)
    shown.say(f"{pushed.reference.familiar}: pushed, {progress.size(pushed.bytes_sent)} sent")
    if args.json:
        cli.print_json(
            {
                "name": name,
                "reference": pushed.reference.familiar,
                "image_id": str(pushed.image_id),
                "digest": str(pushed.digest),
                "bytes_sent": pushed.bytes_sent,
            }
        )
    else:
        print(name)
    if args.wait:
        sys.stdout.flush()  # whoever needs the name has it, also where the image is not ready in time
        _waited(registry, name, args.timeout, shown)
    return 0


@contextmanager
def _opened(
    args: argparse.Namespace, shown: Progress
) -> Iterator[tuple[OpenedImage, Reference | ImageId | None, tuple[str, ...]]]:
    """The image that is meant, what it was called by, and what else it is called."""
    from .. import cache
    from ..archive.stream import StreamedImage
    from ..manifest import parse_platform
    from ..transports import names
    from ..transports.local import seekable
    from ..transports.saved import SavedSource

    transport, rest = names.split(args.image)
    if transport is not None:
        platform = parse_platform(args.platform) if args.platform else None
        insecure = args.insecure and names.is_here(args.image)
        choice = names.Choice(platform=platform, insecure=insecure, progress=shown)
        source = names.source(args.image, choice)
        there = Reference.parse(rest.removeprefix("//")) if transport == "docker" else getattr(source, "called", None)
        with ExitStack() as stack:
            opened: OpenedImage = stack.enter_context(source.open())
            image = opened
            if args.name is None and isinstance(opened, StreamedImage):  # its ID, and so its name, shows at its end
                with shown.step(f"reading {args.image}", None):
                    image = stack.enter_context(seekable(opened, cache.cache_folder()))
            yield image, there, tuple(getattr(opened, "tags", ()))
        return
    if args.image.startswith(_KEEP):
        from .. import copy
        from ..keep.stored import StoredImage

        text = args.image.removeprefix(_KEEP)
        asked = parse_name(text)
        with cli.cluster(args) as cluster:
            stored = copy.one(cluster, text)
            called = asked if asked in stored.names else None
            yield StoredImage(cluster, stored.collection).archived, called, tuple(map(str, stored.names))
        return
    if args.platform:
        raise UsageError("--platform chooses among the images of a source; an engine has one.")
    name = parse_name(args.image)
    engine = cli.engine(args)
    found = engine.inspect(name)
    if isinstance(name, Reference) and name.as_id is not None and name not in references_in(found.tags):
        name = name.as_id
    with SavedSource(engine, found, shown).open() as saved:
        yield saved, name, found.tags


def _images(args: argparse.Namespace, registry: Registry) -> int:
    with _asking(registry):
        names = list(registry.images())
    return _listed(args, names)


def _repos(args: argparse.Namespace, registry: Registry) -> int:
    with _asking(registry):
        names = list(registry.repositories())
    return _listed(args, names)


def _listed(args: argparse.Namespace, names: Sequence[str]) -> int:
    if args.json:
        cli.print_json(names)
    else:
        for name in names:
            print(printable(name))
    return 0


def _create(args: argparse.Namespace, registry: Registry) -> int:
    with _asking(registry):
        created = registry.create(args.repository)
    if args.json:
        cli.print_json({"repository": args.repository, "created": created})
    else:
        print("created" if created else "nothing to do")
    return 0


def _status(args: argparse.Namespace, registry: Registry) -> int:
    with _asking(registry):
        state = registry.status(args.name)
    _say(args, state)
    return {"ready": 0, "pending": NotReady.exit_code, "absent": _ABSENT}[state]


def _wait(args: argparse.Namespace, registry: Registry) -> int:
    _waited(registry, args.name, args.timeout, progress.on())
    _say(args, "ready")
    return 0


def _delete(args: argparse.Namespace, registry: Registry) -> int:
    with _asking(registry):
        deleted = registry.delete(args.name)
    _say(args, "deleted" if deleted else "absent")
    return 0 if deleted else _ABSENT


def _token(args: argparse.Namespace, registry: Registry) -> int:
    with _asking(registry):
        secret = registry.token()
    if args.json:
        cli.print_json({"registry": registry.host, "token": secret})
    else:
        print(secret)
    return 0


def _asking(registry: Registry) -> AbstractContextManager[Advance]:
    """Tells of a registry that takes long to answer."""
    return progress.on().step(f"asking {registry.host}", None)


def _waited(registry: Registry, name: str, seconds: float, shown: Progress) -> None:
    with shown.step(f"waiting until {name} is ready", None):
        registry.wait(name, seconds)


def _say(args: argparse.Namespace, state: str) -> None:
    if args.json:
        cli.print_json({"name": args.name, "state": state})
    else:
        print(state)
