# SPDX-License-Identifier: Apache-2.0
"""The registry of an ``arv-docker registry`` command: its address, the credentials, and the service beside it."""

from __future__ import annotations

import argparse
import shlex
from functools import partial
from typing import TYPE_CHECKING

from .. import cli
from ..errors import UsageError
from . import registry_access

if TYPE_CHECKING:
    from ..publishing.registry import Registry
    from ..registry.credentials import Provider


def add(command: argparse.ArgumentParser, *more: str) -> None:
    """Add the registry and the options about it; ``more`` options name credentials for other registries."""
    command.add_argument("registry", metavar="REGISTRY", help="HOST[:PORT][/FOLDER]")
    cli.add_insecure_option(command)
    cli.add_login_options(command, "--creds", *more)
    command.add_argument("--username", default="", metavar="NAME", help="the user name for the secret")
    command.add_argument("--password-env", metavar="VARIABLE", help="the environment variable with the secret")
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
    command.add_argument(
        "--service-project", metavar="ID", help="with --service: the project that the registry belongs to"
    )
    command.add_argument(
        "--service-token-env",
        metavar="VARIABLE",
        help="a variable has the service's API key, which is exchanged for tokens",
    )


def registry_of(args: argparse.Namespace) -> Registry:
    """The registry in the options, with the service beside it. To be closed after use."""
    from ..publishing.registry import Registry
    from ..registry.credentials import environment_provider
    from ..registry.project import Project
    from ..registry.services import PlainService

    credentials = _credentials(args)
    access, cache = registry_access.access_of(args), cli.user_cache(args)
    if args.service is None:
        if args.service_project is not None or args.service_token_env is not None:
            raise UsageError("--service-project and --service-token-env go with --service.")
        service = partial(PlainService, command=_words(args.create_command, "--create-command"))
        return Registry(args.registry, credentials, service=service, insecure=args.insecure, access=access, cache=cache)
    if args.service_project is None or args.service_token_env is None:
        raise UsageError("--service needs --service-project and --service-token-env.")
    if args.create_command is not None:
        raise UsageError("with --service the service creates repositories: leave out --create-command.")
    key = environment_provider(args.service_token_env, "")
    project = Project(args.service, args.service_project, key, access=access)
    return Registry(
        args.registry,
        credentials or project.credentials,
        service=lambda *_: project,
        insecure=args.insecure,
        access=access,
        cache=cache,
    )


def _credentials(args: argparse.Namespace) -> Provider | None:
    """The source of credentials that the options name; None for Docker's and Podman's configuration."""
    from ..publishing.registry import parse_registry
    from ..registry.credentials import command_provider, environment_provider, helper_provider

    given = [args.creds, args.password_env, args.password_command, args.credential_helper]
    if sum(place is not None for place in given) > 1:
        raise UsageError("give one of --creds, --password-env, --password-command and --credential-helper.")
    if args.creds is not None:
        return registry_access.credentials_of(args, "--creds")
    if args.credential_helper is not None:
        return helper_provider(args.credential_helper, parse_registry(args.registry)[0])
    if args.password_env is not None:
        return environment_provider(args.password_env, args.username)
    if args.password_command is not None:
        return command_provider(_words(args.password_command, "--password-command"), args.username)
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
