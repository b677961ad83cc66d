# SPDX-License-Identifier: Apache-2.0
"""``arv-docker folder``: a folder of image archives, named after their images."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from .. import cli
from ..errors import NotVerified, UsageError, one_line

if TYPE_CHECKING:
    from ..publishing.folder import ArchiveFolder
    from ..transports.folder import FolderArchive

_EPILOG = """\
Each archive is called <image>_<version>_<first 12 digits of the image ID>.<format>, the format being docker
(a tar that docker load takes) or zip. The folder is --dir, or that of the setting ARV_DOCKER_FOLDER.

examples:
  arv-docker folder update --dir images web 1.2.3 --clean --compress
  arv-docker folder config --dir images --base-url https://images.example/
  arv-docker ingest --local folder:images:web:1.2.3
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the commands below ``folder``."""
    parser.epilog = _EPILOG
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    update = _command(
        commands,
        "update",
        _update,
        "save an image of an engine into the folder, if its archive is not there",
        "Prints the path of the archive. A released version is never replaced by another image; the versions latest "
        "and dev, those that end in .dirty or +dirty, and those of four numbers that end in 0 are.\n\n"
        "example:\n  arv-docker folder update --dir images web 1.2.3 --clean --compress",
    )
    update.add_argument("image", metavar="IMAGE", help="the image's name, with or without its tag")
    update.add_argument("version", nargs="?", metavar="VERSION", help="its version (its tag, or latest)")
    update.add_argument(
        "--clean",
        action="store_true",
        help="remove the image's archives of other versions and IDs when the new one is complete",
    )
    update.add_argument("--compress", action="store_true", help="leave the archive as a ZIP file")
    update.add_argument("-f", "--force", action="store_true", help="replace a released version by another image")
    cli.add_engine_option(update)
    listing = _command(
        commands,
        "list",
        _list,
        "list the archives",
        "Other files are left out.\n\nexample:\n  arv-docker folder list --dir images",
    )
    latest = _command(
        commands,
        "latest",
        _latest_archive,
        "list the latest archive of each image",
        "The latest is the image that was built last, by its config; of equal times a released version comes before a "
        "dirty one, then the file that was written last.\n\nexample:\n  arv-docker folder latest --dir images",
    )
    for command in (listing, latest):
        cli.add_wide_option(command)
    _command(
        commands,
        "verify",
        _verify,
        "read every archive and compare it with its name and digests",
        "Ends with exit code 5 if an archive is not what its name says.\n\n"
        "example:\n  arv-docker folder verify --dir images",
    )
    config = _command(
        commands,
        "config",
        _config,
        "print what a server of the folder offers, as JSON",
        "A list with name, version, image ID, format, URL, size in bytes and SHA-256 of each file. All are verified "
        "first; ends with exit code 5 if one is not what its name says.\n\n"
        "example:\n  arv-docker folder config --dir images --base-url https://images.example/",
        json=False,
    )
    config.add_argument("--base-url", required=True, metavar="URL", help="where the folder is served")


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    function: Callable[[argparse.Namespace, ArchiveFolder], int],
    summary: str,
    epilog: str,
    *,
    json: bool = True,
) -> argparse.ArgumentParser:
    command = cli.add_command(commands, name, summary, epilog)
    command.add_argument(
        "--dir", type=cli.as_folder, metavar="FOLDER", help="the folder (the setting ARV_DOCKER_FOLDER)"
    )
    if json:
        cli.add_json_option(command)
    command.set_defaults(folder_function=function)
    return command


def run(args: argparse.Namespace) -> int:
    """Run the command below ``folder``."""
    from ..local.settings import FOLDER
    from ..publishing.folder import ArchiveFolder

    path = args.dir or cli.settings(args).folder
    if path is None:
        raise UsageError(f"which folder? Give --dir FOLDER, or set {FOLDER}.")
    return int(args.folder_function(args, ArchiveFolder(path, cli.progress_for(args), cli.user_cache(args))))


def _update(args: argparse.Namespace, folder: ArchiveFolder) -> int:
    image, version = _name_and_version(args.image, args.version)
    result = folder.update(cli.engine(args), image, version, clean=args.clean, compress=args.compress, force=args.force)
    did = "saved" if result.saved else "compressed" if result.compressed else "up to date"
    removed = f", {len(result.removed)} removed" if result.removed else ""
    cli.progress_for(args).say(f"{image} {version}: {did}{removed}")
    if args.json:
        done = dataclasses.asdict(result)
        done |= {"archive": _as_json(result.archive), "image_id": str(result.image_id)}
        cli.print_json(done)
    else:
        print(one_line(str(result.archive.path)))
    return 0


def _name_and_version(image: str, version: str | None) -> tuple[str, str]:
    """The image's name without a tag, and the version: as given, else the tag, else ``latest``."""
    name, colon, tag = image.rpartition(":")
    if version is not None or not colon or "/" in tag:
        return image, version or "latest"
    return name, tag


def _list(args: argparse.Namespace, folder: ArchiveFolder) -> int:
    return _print(args, folder.images())


def _latest_archive(args: argparse.Namespace, folder: ArchiveFolder) -> int:
    return _print(args, list(folder.latest_archives().values()))


def _verify(args: argparse.Namespace, folder: ArchiveFolder) -> int:
    checked = []
    for it in folder.verify():
        checked.append(it)
        if not args.json:
            print(one_line(f"{'BAD' if it.problem else 'ok '}  {it.archive.path.name}"), flush=True)
    if args.json:
        cli.print_json([_as_json(it.archive) | {"problem": it.problem} for it in checked])
    if bad := [it.problem for it in checked if it.problem]:
        raise NotVerified(f"{len(bad)} of {len(checked)} archives in {folder.path} are bad:", detail="\n".join(bad))
    return 0


def _config(args: argparse.Namespace, folder: ArchiveFolder) -> int:
    cli.print_json([dataclasses.asdict(it) for it in folder.config(args.base_url)])
    return 0


def _print(args: argparse.Namespace, archives: list[FolderArchive]) -> int:
    if args.json:
        cli.print_json([_as_json(archive) for archive in archives])
        return 0
    rows = [("IMAGE", "VERSION", "IMAGE ID", "FORMAT")]
    rows += [(it.name.image, it.name.version, it.name.short_id, it.name.format) for it in archives]
    cli.print_table(args, rows, [0, 1])
    return 0


def _as_json(archive: FolderArchive) -> dict[str, object]:
    return dataclasses.asdict(archive.name) | {"path": archive.path}
