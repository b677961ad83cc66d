# SPDX-License-Identifier: Apache-2.0
"""The command ``arv-docker VERB …``."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Collection, Sequence

from .. import __version__
from . import (
    EXIT_CODES,
    HelpFormatter,
    add_command,
    add_telling_options,
    exit_code_of,
    interrupt,
    without_local,
    without_telling,
)

#: The verbs and what each does. One verb's module is imported when it is asked for, so that the help is there at once.
VERBS = {
    "ingest": "put images into Keep",
    "images": "list the images in Keep, the preferred ones first",
    "build": "build an image with a container engine, and put it into Keep if wanted",
    "resolve": "say which collection an image's name means to the cluster",
    "inspect": "show an image: IDs and layers, and for one in Keep its blocks, collections and links",
    "ls": "list the files of an image, at any source",
    "cat": "print files of an image",
    "diff": "list the files in which two images differ",
    "export": "write the files of an image to standard output, as one tar",
    "copy": "copy images between clusters, archives, layouts, registries and folders",
    "load": "load an image from Keep into a container engine, every byte verified",
    "stage": "put images with their metadata into a folder that a workflow carries along",
    "sif": "convert images in Keep into SIF files where the cluster's nodes look for them",
    "deploy": "load the images of a staged folder into a container engine",
    "verify": "verify an image in Keep, or a staged folder: every layer against the image's config",
    "link": "make an image that is in Keep known by a name, without uploading it",
    "tag": "give a name to an image in Keep, also one that newer builds have",
    "untag": "take a name from the images in Keep; the images stay",
    "status": "say whether the cluster takes a name for what you stored",
    "folder": "keep a folder of image archives in line with an engine",
    "registry": "publish images in a registry, list and delete them, wait until they can be used",
    "cache": "look after the images and saved tarballs that are kept on this machine",
    "doctor": "check commands, cluster, engine, cache and tokens",
    "completion": "print the script by which bash, zsh or fish completes the commands",
    "install-command": "put this package's arv-keepdocker in place of the Arvados SDK's, or undo that",
    "site": "the embedded single-machine Arvados: serve it, reach it, look after it",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; ``arguments`` are those of the process unless given."""
    local, rest = without_local(sys.argv[1:] if arguments is None else arguments)
    telling, rest = without_telling(rest)
    whole = parser([_verb(rest)])
    args, unknown = whole.parse_known_args(rest)
    if unknown:  # told with the usage of the verb, which lists the options that are known
        getattr(args, "parser", whole).error(f"unrecognized arguments: {' '.join(unknown)}")
    args.local, args.telling = local, telling
    level = os.environ.get("ARV_DOCKER_LOG", "") if telling == "" else telling.replace("quiet", "")
    return interrupt.end_command(exit_code_of(lambda: int(args.run(args)), "arv-docker", log=level))


def _verb(arguments: Sequence[str]) -> str:
    """The first word that is no option, in the verb's place; no option before the verb takes a value."""
    return next((argument for argument in arguments if not argument.startswith("-")), "")


def parser(asked: Collection[str] = VERBS) -> argparse.ArgumentParser:
    """Make the parser of the command, with the options of the verbs that are asked for; a module is loaded for each."""
    parser = argparse.ArgumentParser(
        prog="arv-docker",
        description="Container images in Arvados Keep: put in, found, checked, and got out again.",
        epilog=f"example:\n  arv-docker ingest --local busybox:latest\n\n{EXIT_CODES}",
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    add_telling_options(parser)
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for name, summary in VERBS.items():
        child = add_command(verbs, name, summary)
        if name in asked:
            verb = importlib.import_module(f".{name.replace('-', '_')}", __package__)
            child.set_defaults(run=verb.run, parser=child)
            verb.configure(child)
            child.epilog = "\n\n".join((str(child.epilog).rstrip(), "What the exit codes mean: arv-docker --help"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
