# SPDX-License-Identifier: Apache-2.0
"""``arv-docker registry``: images in a registry, published under names that never mean another image."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, TypeVar

from .. import cli
from ..errors import NotReady, RegistryError, UsageError, one_line
from ..local import progress
from ..local.progress import Progress
from ..model.reference import Reference, parse_name
from . import registry_options

if TYPE_CHECKING:
    from ..publishing.registry import Registry
    from ..transports import OpenedImage

Value = TypeVar("Value")

_EPILOG = """\
REGISTRY is HOST[:PORT][/FOLDER]; names are REPOSITORY:TAG in it. Credentials are those of Docker's and Podman's
configuration (docker login), unless an option says where else they come from. Nothing is written there.

examples:
  arv-docker registry push --insecure localhost:5000 busybox:latest
  arv-docker registry push registry.example/team docker-archive:app.tar --wait
  arv-docker registry images registry.example
"""

#: The exit codes for what has become of an image.
_CODES = {"ready": 0, "deleted": 0, "absent": 1, "pending": NotReady.exit_code}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the commands below ``registry``."""
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
        "  arv-docker registry push --wait registry.example oci-archive:app.tar \\\n"
        "    tools/app:2",
    )
    push.add_argument(
        "image", metavar="IMAGE", help="an image of the engine, keep:NAME, or docker-archive:FILE and the like"
    )
    push.add_argument("name", nargs="?", metavar="NAME", help="the name to give it, exactly")
    push.add_argument("--wait", action="store_true", help="return when the image can be used")
    push.add_argument("--uncompressed", action="store_true", help="push layers as they are, not compressed with gzip")
    cli.add_platform_option(push, "of a source that has several")
    cli.add_engine_option(push)
    cli.add_trust_option(push)
    cli.add_cluster_options(push)
    for name, function, summary in (
        ("images", _images, "list the names of all images"),
        ("repos", _repos, "list the repositories"),
        ("token", _token, "print the token or password for the registry"),
    ):
        _command(commands, name, function, summary, f"example:\n  arv-docker registry {name} registry.example")
    tags = _command(
        commands,
        "tags",
        _tags,
        "list the tags of a repository",
        "example:\n  arv-docker registry tags registry.example tools/app",
    )
    tags.add_argument("repository", metavar="REPOSITORY", help="its name")
    create = _command(
        commands,
        "create",
        _create,
        "create a repository",
        "Where a registry has repositories with the first push, nothing is to be done.\n\n"
        "example:\n  arv-docker registry create registry.example tools/app\n"
        "  arv-docker registry create registry.example app --create-command \\\n"
        "    'aws ecr create-repository --repository-name'",
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
        "delete an image",
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
    command = cli.add_command(commands, name, summary, epilog)
    registry_options.add(command, *(("--src-creds",) if name == "push" else ()))
    cli.add_json_option(command)
    command.set_defaults(registry_function=function)
    return command


def run(args: argparse.Namespace) -> int:
    """Run the command below ``registry``."""
    with closing(registry_options.registry_of(args)) as registry:
        return int(args.registry_function(args, registry))


# -- the commands --------------------------------------------------------------------------------


def _push(args: argparse.Namespace, registry: Registry) -> int:
    shown = cli.progress_for(args)
    with _open_image(args, shown) as (image, called, tags):
        name = args.name or registry.name_of(image.config.digest, called, tags)
        with shown.step(f"pushing to {registry.host}", image.known_size) as advance:
            pushed = registry.push(image, name, advance, compress=not args.uncompressed)
    shown.say(f"{pushed.reference.familiar_name}: pushed, {progress.size_text(pushed.bytes_sent)} sent")
    document = {
        "name": name,
        "reference": pushed.reference.familiar_name,
        "image_id": str(pushed.image_id),
        "digest": str(pushed.digest),
        "bytes_sent": pushed.bytes_sent,
    }
    _print_answer(args, document, name)
    if args.wait:
        sys.stdout.flush()  # whoever needs the name has it, also where the image is not ready in time
        _wait_for_image(registry, name, args.timeout, shown)
    return 0


@contextmanager
def _open_image(
    args: argparse.Namespace, shown: Progress
) -> Iterator[tuple[OpenedImage, Reference | None, tuple[str, ...]]]:
    """Open the image, and give it with the name that was asked for, and further names."""
    from ..ingest import link_names
    from ..transports import names
    from ..transports.local import seekable
    from ..transports.saved import SavedSource

    if names.split(args.image)[0] is not None:
        insecure = args.insecure and names.is_here(args.image)
        source = names.source(args.image, cli.choice(args, shown, insecure=insecure, creds="--src-creds"))
        with ExitStack() as stack:
            opened: OpenedImage = stack.enter_context(source.open())
            image = opened
            if args.name is None and opened.streams:  # its ID, and so its name, shows at its end
                with shown.step(f"reading {args.image}", None):
                    image = stack.enter_context(seekable(opened, cli.cache_folder(args)))
            yield image, source.catalog_name, opened.tags
        return
    if args.platform:
        raise UsageError("--platform chooses among the images of a source; an engine has one.")
    name = parse_name(args.image)
    engine = cli.engine(args)
    found = engine.inspect(name)
    with SavedSource(engine, found, shown, cli.user_cache(args)).open() as saved:
        yield saved, link_names.of_engine(name, found), found.tags


def _images(args: argparse.Namespace, registry: Registry) -> int:
    return _list(args, registry, registry.images())


def _repos(args: argparse.Namespace, registry: Registry) -> int:
    return _list(args, registry, registry.repositories())


def _tags(args: argparse.Namespace, registry: Registry) -> int:
    return _list(args, registry, registry.tags(args.repository))


def _create(args: argparse.Namespace, registry: Registry) -> int:
    created = _ask_registry(args, registry, lambda: registry.create(args.repository))
    return _print_answer(
        args, {"repository": args.repository, "created": created}, "created" if created else "nothing to do"
    )


def _status(args: argparse.Namespace, registry: Registry) -> int:
    return _print_state(args, _ask_registry(args, registry, lambda: registry.status(args.name)))


def _wait(args: argparse.Namespace, registry: Registry) -> int:
    _wait_for_image(registry, args.name, args.timeout, cli.progress_for(args))
    return _print_state(args, "ready")


def _delete(args: argparse.Namespace, registry: Registry) -> int:
    return _print_state(
        args, "deleted" if _ask_registry(args, registry, lambda: registry.delete(args.name)) else "absent"
    )


def _token(args: argparse.Namespace, registry: Registry) -> int:
    secret = _ask_registry(args, registry, registry.token)
    return _print_answer(args, {"registry": registry.host, "token": secret}, secret)


def _ask_registry(args: argparse.Namespace, registry: Registry, ask: Callable[[], Value]) -> Value:
    """Return a registry's answer to ``ask``; where that takes long, the user is told."""
    with cli.progress_for(args).step(f"asking {registry.host}", None):
        return ask()


def _wait_for_image(registry: Registry, name: str, seconds: float, shown: Progress) -> None:
    with shown.step(f"waiting until {name} is ready", None):
        registry.wait(name, seconds)


def _list(args: argparse.Namespace, registry: Registry, names: Iterator[str]) -> int:
    """Print names, including names before an error."""
    listed: list[str] = []
    try:
        with cli.progress_for(args).step(f"asking {registry.host}", None):
            for name in names:
                listed.append(name)
    except RegistryError:
        if listed:
            _print_answer(args, listed, *map(one_line, listed))
        raise
    return _print_answer(args, listed, *map(one_line, listed))


def _print_state(args: argparse.Namespace, state: str) -> int:
    """Print what has become of an image, and return the exit code that says so too."""
    _print_answer(args, {"name": args.name, "state": state}, state)
    return _CODES[state]


def _print_answer(args: argparse.Namespace, document: object, *lines: str) -> int:
    """Print the answer, for a program or for people."""
    if args.json:
        cli.print_json(document)
    else:
        for line in lines:
            print(line)
    return 0
