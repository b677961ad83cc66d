# SPDX-License-Identifier: Apache-2.0
"""File names of staged images, as other programs expect them. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import quote

from ..errors import UsageError
from ..model.archive_name import PLAIN, ArchiveName
from ..model.image import Digest
from ..model.reference import ImageId, Reference, parse_name

#: A file name for the image that was asked for by that text, and has that ID.
Naming = Callable[[str, Digest], str]

#: What is put behind the name of an archive to name the file of its metadata.
METADATA_SUFFIX = "_meta.json"
_LONGEST_NAME = 255 - len(f".{METADATA_SUFFIX}.partial")


def plain(text: str, suffix: str = ".tar") -> str:
    """The file name that only this image has, and that says which one it is: percent-encoded; the end of a long one is
    a hash.

    >>> plain("quay.io/a/b:1")
    'quay.io%2Fa%2Fb%3A1.tar'
    """
    name = parse_name(text)
    full = quote(name.full_id if isinstance(name, ImageId) else name.familiar_name, safe="")
    if len(full) > _LONGEST_NAME - len(suffix):
        full = f"{full[:100]}~{Digest.of(full.encode()).hex}"
    return f"{full}{suffix}"


def cwl(text: str) -> str:
    """The file name by which cwltool and WfExS' CWL engine look for an image.

    >>> cwl("docker://quay.io/a/b:1")
    'docker:__quay.io_a_b:1.img'
    """
    return text.replace("/", "_") + ".img"


def cwl_sif(text: str) -> str:
    """The file name by which cwltool looks for a SIF file.

    >>> cwl_sif("docker://quay.io/a/b:1"), cwl_sif("busybox")
    ('quay.io_a_b:1.sif', 'busybox_latest.sif')
    """
    name = text.removeprefix("docker://")
    return (name if ":" in name else f"{name}_latest").replace("/", "_") + ".sif"


def nextflow(text: str) -> str:
    """The file name by which Nextflow looks for an image.

    >>> nextflow("docker://quay.io/a/b:1"), nextflow("x.sif:1")
    ('quay.io-a-b-1.img', 'x-1.sif')
    """
    name = text.partition("://")[2] or text
    suffix = ".img"
    if ".sif:" in name:
        name, suffix = name.replace(".sif:", "-"), ".sif"
    elif name.endswith(".sif"):
        name, suffix = name.removesuffix(".sif"), ".sif"
    return name.replace(":", "-").replace("/", "-") + suffix


def folder(text: str, image_id: Digest, form: str = PLAIN) -> str:
    """The file name that ``arv-docker folder`` gives an archive, the tag being the version; raises UsageError for a
    name that it cannot hold."""
    name = _reference(text, "folder")
    image = name.familiar_name.partition("@")[0].removesuffix(f":{name.tag}")
    return ArchiveName(image, name.tag or "", image_id.short_hex, form).file_name


SCHEMES: dict[str, Naming] = {
    "plain": lambda text, _: plain(text),
    "cwl": lambda text, _: cwl(text),
    "nextflow": lambda text, _: nextflow(text),
    "folder": folder,
}


#: The same for SIF files.
SIF_SCHEMES: dict[str, Naming] = {
    "plain": lambda text, _: plain(text, ".sif"),
    "cwl": lambda text, _: cwl_sif(text),
    "nextflow": lambda text, _: nextflow(text),
    "folder": lambda text, image_id: folder(text, image_id, "sif"),
}


def naming(scheme: str, schemes: Mapping[str, Naming] = SCHEMES) -> Naming:
    """The naming of that scheme, or by a template: ``{repository}-{tag}.tar``.

    A template may have ``{registry}``, ``{repository}``, ``{tag}``, ``{id}`` and ``{short_id}``; slashes
    and other characters in them are percent-encoded. Raises UsageError for anything else.
    The names raise UsageError where they would be no file's.
    """
    if scheme in schemes:
        return lambda text, image_id: _check_name(schemes[scheme](text, image_id))
    if "{" not in scheme:
        raise UsageError(f"{scheme!r} is no naming: there are {', '.join(SCHEMES)}, or a template such as {{tag}}.tar.")
    _fill_template(scheme, "busybox:1", Digest.of(b""))
    return lambda text, image_id: _check_name(_fill_template(scheme, text, image_id))


def _fill_template(template: str, text: str, image_id: Digest) -> str:
    name = _reference(text, template)
    fields = {
        "registry": name.registry,
        "repository": name.repository,
        "tag": name.tag or "",
        "id": image_id.hex,
        "short_id": image_id.short_hex,
    }
    try:
        return template.format_map({key: quote(value, safe="") for key, value in fields.items()})
    except (KeyError, ValueError, IndexError, AttributeError) as error:
        known = ", ".join(f"{{{key}}}" for key in fields)
        raise UsageError(f"{template!r} is no naming: {error!r}. A template may have {known}.") from None


def _reference(text: str, scheme: str) -> Reference:
    name = parse_name(text)
    if isinstance(name, ImageId):
        raise UsageError(f"{text!r} is no name, so the naming {scheme!r} cannot be used. Use plain, cwl or nextflow.")
    return name


def _check_name(name: str) -> str:
    if not name or name.startswith(".") or "/" in name or "\0" in name or name.endswith(METADATA_SUFFIX):
        raise UsageError(f"{name!r} cannot be the name of a file here. Choose another --naming.")
    if len(name.encode()) > _LONGEST_NAME:
        raise UsageError(f"{name[:60]!r}… would be a name of more than {_LONGEST_NAME} bytes. Choose another --naming.")
    return name
