# SPDX-License-Identifier: Apache-2.0
"""The names of ``arvados.commands.keepdocker``, for programs that import them.

Same names, arguments, defaults, shapes and exceptions (docs/spec/keepdocker.md#module);
what they do is done by the rest of the package. New programs use ``arv_docker.get_image``.
``install()`` makes ``import arvados.commands.keepdocker`` yield this module.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import IO, Any, TextIO

from ..archive.reader import ArchiveReader
from ..arvados.catalog import ranking
from ..arvados.catalog.listing import ListingRow, list_images
from ..arvados.client import Cluster, Link
from ..arvados.trust import Trust
from ..cli import arv_keepdocker
from ..engines import Engine
from ..engines.docker import Docker
from ..errors import ArvDockerError, ContentError, NoSuchImage
from ..ingest.results import IngestResult
from ..local.settings import settings
from ..model.image import oci_object
from ..model.reference import DEFAULT_TAG, ImageId, Reference, name_as_id, name_from_arguments, parse_name
from ..store import tarballs
from ..transports.local import LocalFile
from . import import_hook

#: The name under which the command ``arv`` of SDKs after 3.2 runs ``main``; it takes a return for a failure.
_ARV_KEEP_DOCKER = "arv keep docker"

EARLIEST_DATETIME = datetime.datetime(datetime.MINYEAR, 1, 1)
STAT_CACHE_ERRORS = (OSError, ValueError)

DockerImage = collections.namedtuple("DockerImage", ["repo", "tag", "hash", "created", "vsize"])


def get_keepdocker_parser() -> argparse.ArgumentParser:
    """Make a parser of the options besides those of arv-put, as SDKs after 3.2 have it."""
    return arv_keepdocker.own_options()


def get_argument_parser(keepdocker_parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Make the parser of the command, with the options of ``keepdocker_parser`` and those of arv-put."""
    return arv_keepdocker.parser(keepdocker_parser)


#: The same as objects, as SDKs up to 3.2 have it.
keepdocker_parser = get_keepdocker_parser()
arg_parser = get_argument_parser(keepdocker_parser)

logger = arv_keepdocker.logger


class DockerError(Exception):
    """The engine failed, or has no image or several of that name."""


def install() -> None:
    """Make ``import arvados.commands.keepdocker`` in this process give this module from now on."""
    import_hook.install()
    import_module(import_hook.REPLACED)


def main(
    arguments: Sequence[str] | None = None,
    stdout: TextIO = sys.stdout,
    stderr: TextIO = sys.stderr,
    install_sig_handlers: bool = True,
    api: Any = None,
) -> None:
    """Run ``arv-keepdocker`` with ``arguments``; return after an upload, as the original does.

    Everything else ends with SystemExit: code 0 after a listing, and where Keep had the image. ``api`` is used for
    everything, blocks included, instead of a client made from the environment. A URL ``host:port/name`` whose tag a
    caller has lost is refused, never guessed.
    """
    results: list[IngestResult] = []
    code = arv_keepdocker.main(
        arguments,
        stdout,
        stderr,
        signals=install_sig_handlers,
        api=api,
        command=False,
        on_result=results.append,
    )
    uploaded = any(it.bytes_sent or it.bytes_skipped for it in results)
    if code != 0 or not uploaded or sys.argv[:1] == [_ARV_KEEP_DOCKER]:
        raise SystemExit(code)


# -- the engine -------------------------------------------------------------------------


def popen_docker(cmd: Sequence[str], *args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
    """Start ``docker`` or ``docker.io``; its input is closed and its output piped unless told otherwise."""
    kwargs.setdefault("stdin", subprocess.DEVNULL)
    kwargs.setdefault("stdout", subprocess.PIPE)
    kwargs.setdefault("stderr", subprocess.PIPE)
    with _docker_errors():
        return subprocess.Popen([Docker().command, *cmd], *args, **kwargs)


def check_docker(proc: subprocess.Popen[bytes], description: str) -> None:
    """Wait for a command of ``popen_docker``; raises DockerError if it failed."""
    _, errors = proc.communicate()
    if proc.returncode != 0:
        words = (errors or b"").decode(errors="replace").strip()
        raise DockerError(f"docker {description} returned status code {proc.returncode}. {words}".strip())


def docker_images() -> Iterator[DockerImage]:
    """Each line of ``docker images --no-trunc``, in its order."""
    with _docker_errors():
        listed = Docker().list()
    for image in listed:
        yield DockerImage(image.repository, image.tag, str(image.id), image.created, image.size)


def find_image_hashes(image_search: str, image_tag: str | None = None) -> list[str]:
    """Find the ID of the engine's image of that name or ID, as a list; empty without an image."""
    with _docker_errors():
        try:
            name = parse_name(f"{image_search}:{image_tag}" if image_tag else image_search)
            return [str(Docker().inspect(name).id)]
        except NoSuchImage:
            return []


def find_one_image_hash(image_search: str, image_tag: str | None = None) -> str:
    """Find the ID of the image of that name; raises DockerError without exactly one."""
    hashes = find_image_hashes(image_search, image_tag)
    if len(hashes) != 1:
        raise DockerError("no matching image found")
    return hashes[0]


def docker_image_format(image_hash: str) -> str:
    """The registry format of an image: ``v2`` for an ID with ``sha256:``, ``v1`` without, else ``unknown``."""
    hashes = find_image_hashes(image_hash)
    if not hashes:
        raise DockerError(f"no image {image_hash}")
    return "v2" if hashes[0].startswith("sha256:") else "unknown" if ":" in hashes[0] else "v1"


def docker_image_compatible(api: Any, image_hash: str) -> bool:
    """True if the cluster says that it accepts the image's format; a reason to refuse is logged."""
    supported = Cluster(api).image_formats
    if not supported:
        logger.warning("the cluster does not say which image formats it accepts")
        return False
    found = docker_image_format(image_hash)
    if found not in supported:
        logger.error("the image's format is %r, and the cluster accepts only %r", found, supported)
    return found in supported


def pull_image(image_name: str, image_tag: str) -> None:
    """Run ``docker pull`` of the name with the tag."""
    check_docker(popen_docker(["pull", f"{image_name}:{image_tag}"]), "pull")


# -- saved tarballs ---------------------------------------------------------------------


def _cache_parent() -> Path:
    return tarballs.cache_folder().parent


def get_cache_dir(mkparent: Callable[[], Path] = _cache_parent) -> str:
    """Return the folder of saved tarballs, made with mode 0700 if it is not there."""
    path = mkparent() / "docker"
    path.mkdir(mode=0o700, exist_ok=True)
    return str(path)


def stat_cache_name(image_file: Any) -> str:
    """Path of the record of a saved tarball; takes the file or its name."""
    return str(getattr(image_file, "name", image_file)) + ".stat"


def prep_image_file(filename: str) -> tuple[IO[bytes], bool]:
    """Open the tarball of that name in the cache folder, and say if it must be saved into first (then it is empty)."""
    path = Path(get_cache_dir()) / filename
    file, missing = tarballs.prep_image_file(path)
    if file is None:
        path.unlink(missing_ok=True)  # be it a link that somebody made there
        file = path.open("x+b")
    return file, missing


def save_image(image_hash: str, image_file: IO[bytes]) -> None:
    """Run ``docker save`` into an open file, and write its record beside it if that can be written."""
    engine: Engine = Docker()
    with _docker_errors(), engine.save([image_hash]) as output:
        while chunk := output.read(1 << 20):
            image_file.write(chunk)
    image_file.flush()
    try:
        tarballs.write_record(Path(image_file.name), os.fstat(image_file.fileno()), engine.name)
    except STAT_CACHE_ERRORS:
        logger.debug("the saved tarball cannot be used again: its record was not written")


def load_image_metadata(image_file: IO[bytes]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Manifest entry and config of the one image of an archive; raises ValueError unless there is exactly one."""
    try:
        archive = ArchiveReader(LocalFile(image_file.fileno()))
        config = archive.image().config
    except ContentError as error:
        raise ValueError(str(error)) from error
    (listed,) = archive.images
    manifest = {"Config": listed.config_path, "RepoTags": list(listed.tags) or None, "Layers": list(listed.layer_paths)}
    return manifest, oci_object(config.raw, what="the image's config")


# -- links ------------------------------------------------------------------------------


def make_link(api_client: Any, num_retries: int, link_class: str, link_name: str, **link_attrs: Any) -> dict[str, Any]:
    """Create a link and return its record."""
    body = {**link_attrs, "link_class": link_class, "name": link_name}
    record: dict[str, Any] = api_client.links().create(body=body).execute(num_retries=num_retries)
    return record


def docker_link_sort_key(link: Mapping[str, Any]) -> tuple[datetime.datetime, datetime.datetime]:
    """The rank of a link, as two datetimes in UTC without zone; the greatest is preferred. Raises for no link."""
    made, created = ranking.sort_key(Link.of(link))
    return _naive_time(made), _naive_time(created)


def list_images_in_arv(
    api_client: Any,
    num_retries: int,
    image_name: str | None = None,
    image_tag: str | None = None,
    project_uuid: str | None = None,
) -> list[tuple[str, dict[str, Any]]]:
    """List the images of that name, or all, the preferred first, as pairs of collection UUID and a dict.

    The dict has ``dockerhash``, ``repo``, ``tag``, ``timestamp`` (a datetime in UTC without
    zone), ``collection`` and ``_sort_key``. A hash is looked for where no name is found, if
    ``image_name`` is one.
    """
    cluster = Cluster(api_client, retries=num_retries)
    trust = Trust.from_settings(cluster, settings())
    if not image_name:
        return [_list_links(row) for row in list_images(cluster, trust, project=project_uuid).rows]
    try:
        also = name_as_id(image_name)
        if also is not None and (also.as_digest or image_name.startswith("sha256:")):
            name: Reference | ImageId = also
        else:
            name = name_from_arguments(image_name, image_tag or DEFAULT_TAG)
    except ArvDockerError:
        return []  # no link that this program or the original writes is called so
    return [_list_links(row) for row in list_images(cluster, trust, str(name), project_uuid, also=also).rows]


def items_owned_by(owner_uuid: str, arv_items: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Records of ``arv_items`` that ``owner_uuid`` owns."""
    return (item for item in arv_items if item["owner_uuid"] == owner_uuid)


def _list_links(row: ListingRow) -> tuple[str, dict[str, Any]]:
    made, created = ranking.sort_key(row.link)
    return row.collection.uuid, {
        "_sort_key": (_naive_time(made), _naive_time(created)),
        "timestamp": _naive_time(row.timestamp),
        "collection": row.collection.uuid,
        "dockerhash": row.image_id,
        "repo": row.repository,
        "tag": row.tag,
    }


def _naive_time(time: datetime.datetime) -> datetime.datetime:
    """``time`` without a zone, in UTC, as the original has its times; the first or last there is beyond them."""
    try:
        return time.astimezone(datetime.timezone.utc).replace(tzinfo=None)
    except OverflowError:
        return datetime.datetime.min if time.year == datetime.MINYEAR else datetime.datetime.max


@contextmanager
def _docker_errors() -> Iterator[None]:
    try:
        yield
    except ArvDockerError as error:
        raise DockerError(str(error)) from error
