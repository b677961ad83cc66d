# SPDX-License-Identifier: Apache-2.0
"""Of an archive that is vouched for as it lies, engines see the image that was verified, or it is refused.

Random archives with whatever two readers may read differently are read strictly, and by a reader after Go's rules,
which is what Docker, Podman and containers/image have.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from arv_docker.archive.reader import ArchiveReader
from arv_docker.errors import ArvDockerError

from ..archives import (
    END,
    Bytes,
    Image,
    canonical_archive,
    classic,
    files_of,
    hex_of,
    hybrid,
    image,
    layout,
    member,
    pax,
)
from . import go_reader

GOOD = image(files_of(b"good"), files_of(b"low"), os="linux", architecture="amd64")
EVIL = image(files_of(b"evil"), files_of(b"low"), os="linux", architecture="amd64")

Members = list[bytes]


def strictly(content: bytes) -> tuple[bytes, list[bytes]] | None:
    """The config and the layers that are vouched for; None for an archive that is refused."""
    try:
        found = ArchiveReader(Bytes(content), strict=True).image()
        found.check_layout()
        return found.config.raw, [found.layer(it).read(1 << 30) for it in found.config.diff_ids]
    except ArvDockerError:
        return None


def as_go_reads(content: bytes) -> tuple[bytes, list[bytes]]:
    """The same by the other reader, which compares JSON's keys without regard to case and takes the last."""
    files = go_reader.files(content)
    (listed, *_) = json.loads(files["manifest.json"], object_pairs_hook=_folded)
    return files[_clean(listed["config"])], [files[_clean(name)] for name in listed.get("layers") or ()]


def _folded(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key.casefold(): value for key, value in pairs}


def _clean(name: str) -> str:
    return name.removeprefix("./")


# -- random archives -------------------------------------------------------------------------------


def named(name: str, content: bytes, **more: Any) -> bytes:
    return member(name.encode(), content, **more)


def summed(header: bytes) -> bytes:
    """The header with the checksum that it should have."""
    total = sum(header[:148]) + 8 * 32 + sum(header[156:512])
    return header[:148] + b"%06o\0 " % total + header[156:]


def changed(made: bytes, start: int, value: bytes) -> bytes:
    """The member with other bytes in its header."""
    return summed(made[:start] + value + made[start + len(value) :])


def archive_of(made: Image, names: dict[str, str], listed: bytes | None = None) -> Members:
    """The members of an archive of the image, its files called by these names."""
    config, layers = names["config"], [names["one"], names["two"]]
    text = listed or json.dumps([{"Config": config, "RepoTags": ["a:1"], "Layers": layers}]).encode()
    found = [named(name, content) for name, content in zip(layers, made.layers, strict=True)]
    return [*found, named(config, made.config), named("manifest.json", text)]


NAMES = {"config": "c.json", "one": "one/layer.tar", "two": "two.tar"}


def odd(chance: random.Random) -> bytes:
    """An archive with one to three odd things in it."""
    members = archive_of(GOOD, NAMES)
    for _ in range(chance.randint(1, 3)):
        chance.choice(ODDITIES)(members, chance)
    return b"".join(members) + chance.choice((END, END, END, b"", bytes(512), bytes(512) + members[0] + END))


def _place(members: Members, chance: random.Random) -> int:
    return chance.randrange(len(members) + 1)


def _metadata(members: Members, chance: random.Random) -> None:
    """Headers of names, once or twice, before a member that may be the evil one."""
    name = chance.choice((*NAMES.values(), "manifest.json", "other"))
    headers = [
        lambda: pax({"path": name.encode()}),
        lambda: pax({"comment": b"x", "mtime": chance.choice((b"1.5", b"x", b""))}),
        lambda: pax({"path": b"elsewhere"}),
        lambda: pax({"size": chance.choice((b"%d" % len(EVIL.layers[0]), b"0", b"-1"))}),
        lambda: pax({"uid": chance.choice((b"5", b"no"))}),
        lambda: member(b"././@LongLink", name.encode() + b"\0", kind=b"L"),
        lambda: member(b"././@LongLink", b"elsewhere\0", kind=b"L"),
        lambda: member(b"././@LongLink", b"two.tar\0", kind=b"K"),
        lambda: pax({"path": name.encode()}, kind=b"g"),
        lambda: pax({"comment": b"x"}, kind=b"g"),
        lambda: member(b"pax", b"9 a=bcde\n"[:9] + b"\0" * chance.randint(0, 3), kind=b"x"),
        lambda: member(b"pax", b"18 path=one/x\0.tar\n"[:18] + b"\n", kind=b"x"),
    ]
    made = [chance.choice(headers)() for _ in range(chance.randint(1, 3))]
    place = _place(members, chance)
    if chance.random() < 0.7:
        made.append(named(chance.choice(("x", name)), chance.choice((EVIL.layers[0], EVIL.config, GOOD.layers[0]))))
    members[place:place] = made


def _variant(members: Members, chance: random.Random) -> None:
    """A header of an old variant, which has the name's front elsewhere, or a field that is no number."""
    place = chance.randrange(len(members))
    made = chance.choice((members[place], named(chance.choice(list(NAMES.values())), EVIL.layers[0])))
    start, value = chance.choice(
        (
            (257, bytes(8)),
            (257, b"ustar  \0"),
            (257, b"ustar\0 0"),
            (508, b"tar\0"),
            (345, b"one"),
            (476, b"one"),
            (500, b"x"),
            (100, b"rw-r--r\0"),
            (136, b"\x80" + bytes(11)),
            (156, b"7"),
            (156, b"\0"),
            (329, b"nonsense"),
            (148, b"0000000\0"),
        )
    )
    made = changed(made, start, value) if start != 148 else made[:148] + value + made[156:]
    if chance.random() < 0.4:
        made = changed(made, 257, b"ustar  \0")
        made = changed(made, 345, b"one\0" + b"q" * 8)
    if chance.random() < 0.5:
        members[place] = made
    else:
        members.insert(place, made)


def _second(members: Members, chance: random.Random) -> None:
    """Another member of a name that is there, of any type."""
    name = chance.choice((*NAMES.values(), "manifest.json", "one"))
    content = chance.choice((EVIL.layers[0], GOOD.layers[0], EVIL.config, GOOD.config))
    members.insert(
        _place(members, chance),
        chance.choice(
            (
                named(name, content),
                named(f"./{name}", content),
                named(f"/{name}", content),
                named(name, b"", kind=b"5"),
                named(name, b"", kind=b"3"),
                named(name, b"", kind=b"1", target=b"two.tar"),
                named(name, b"", kind=b"2", target=b"two.tar"),
                named(name, b"", kind=b"2", target=b"../two.tar"),
                named(f"{name}/below", content),
                member(name.encode(), b"", kind=b"2", target=b"two.tar", size=b"00000001000\0"),
            )
        ),
    )


def _link(members: Members, chance: random.Random) -> None:
    """A file in the place of which there is a link, to one that is, or that leads on."""
    place = chance.randrange(len(members))
    members.append(named("real", members[place][512:].rstrip(b"\0") or b"x"))
    name = members[place][:100].rstrip(b"\0").decode()
    target = ("../" if "/" in name else "") + chance.choice(("real", "again", "two.tar", "c.json"))
    members[place] = named(name, b"", kind=chance.choice((b"1", b"2", b"2")), target=target.encode())
    if target.endswith("again"):
        members.append(named("again", b"", kind=b"2", target=b"real"))


def _json(members: Members, chance: random.Random) -> None:
    """A list whose keys, or whose text, readers read differently."""
    listed = json.dumps({"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["one/layer.tar", "two.tar"]})
    extra = chance.choice(
        (
            '"config": "evil.json"',
            '"Config": "evil.json"',
            '"LAYERS": ["two.tar", "two.tar"]',
            '"layer\u017f": ["two.tar"]',
            '"Size": NaN',
            '"Parent": "x"',
        )
    )
    text = listed[:-1] + ", " + extra + "}" if chance.random() < 0.5 else "{" + extra + ", " + listed[1:]
    members[-1:] = [named("evil.json", EVIL.config), named("manifest.json", f"[{text}]".encode())]


ODDITIES: list[Callable[[Members, random.Random], None]] = [_metadata, _metadata, _variant, _second, _link, _json]


def hold(seed: int) -> bool:
    """The statement, for one archive; whether it was vouched for."""
    content = odd(random.Random(seed))
    ours = strictly(content)
    if ours is None:
        return False
    try:
        theirs = as_go_reads(content)
    except (go_reader.Refused, KeyError, ValueError, TypeError) as error:
        raise AssertionError(f"case {seed} is vouched for, and an engine cannot read it: {error!r}") from None
    assert theirs == ours, f"case {seed} is vouched for, and an engine sees another image"
    return True


def test_what_is_vouched_for_is_what_engines_see() -> None:
    taken = sum(map(hold, range(3_000)))
    assert 100 < taken < 2_900  # odd things that harm nobody are there too


@pytest.mark.long
def test_what_is_vouched_for_is_what_engines_see_in_many_cases() -> None:
    assert sum(map(hold, range(3_000, 103_000))) > 3_000


@pytest.mark.parametrize("form", [classic, hybrid, layout, canonical_archive])
def test_what_engines_write_is_taken(form: Callable[[Image], bytes]) -> None:
    found = strictly(form(GOOD))
    assert found == (GOOD.config, list(GOOD.layers))
    if form is not layout:
        assert as_go_reads(form(GOOD)) == found


def test_the_plain_archive_is_taken_and_the_search_finds_differences() -> None:
    plain = b"".join(archive_of(GOOD, NAMES)) + END
    assert strictly(plain) == as_go_reads(plain) == (GOOD.config, list(GOOD.layers))
    evil = json.dumps([{"Config": "e.json", "Layers": ["evil.tar", "two.tar"]}]).encode()
    hidden = pax({"path": b"manifest.json"}) + pax({"comment": b"x"}, kind=b"g") + named("other", evil)
    members = [named("e.json", EVIL.config), named("evil.tar", EVIL.layers[0]), *archive_of(GOOD, NAMES), hidden]
    content = b"".join(members) + END
    assert as_go_reads(content)[0] == GOOD.config  # Go forgets the name
    tolerant = ArchiveReader(Bytes(b"".join([*members[:-2], hidden]) + END)).image().config.raw
    assert (tolerant, strictly(content)) == (EVIL.config, None)
    assert hex_of(tolerant) == hex_of(EVIL.config)
