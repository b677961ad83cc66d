# SPDX-License-Identifier: Apache-2.0
"""Names of images: the tables of what people write, and properties both ways."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from arv_docker.errors import ArvDockerError, BadReference
from arv_docker.model.image import Digest
from arv_docker.model.reference import ImageId, Reference, name_from_arguments, parse_name

HEX = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
DIGEST = Digest("sha256", HEX)
TAG_128 = "t" * 128


@pytest.mark.conforms("W1")
@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        # Names that WfExS takes apart rightly (docs/spec/wfexs.md#names).
        ("busybox", "docker.io", "busybox", "latest", None),
        ("busybox:1", "docker.io", "busybox", "1", None),
        ("quay.example.com/a/b:1", "quay.example.com", "a/b", "1", None),
        ("docker://quay.example.com/a/b", "quay.example.com", "a/b", "latest", None),
        # The wrong rows, by the standard rule: a first component is a registry by its dot, colon, or name localhost.
        (f"a/b/c@sha256:{HEX}", "docker.io", "a/b/c", None, DIGEST),
        ("quay.example.com/b", "quay.example.com", "b", "latest", None),
        ("localhost:5000/b:2", "localhost:5000", "b", "2", None),
        (f"a/b:tag@sha256:{HEX}", "docker.io", "a/b", "tag", DIGEST),
        # Ports and hosts (docs/conformance.md#k2).
        ("host:8888/r:t", "host:8888", "r", "t", None),
        ("[::1]:8888/r", "[::1]:8888", "r", "latest", None),
        ("[2001:db8::1]/r:t", "[2001:db8::1]", "r", "t", None),
        ("host:443/p:t", "host:443", "p", "t", None),
        # A repository may be called sha (docs/conformance.md#k11).
        ("sha:latest", "docker.io", "sha", "latest", None),
        (f"repo@sha256:{HEX}", "docker.io", "repo", None, DIGEST),
        # The rest of the grammar.
        ("localhost/b", "localhost", "b", "latest", None),
        ("LOCALREGISTRY/b", "LOCALREGISTRY", "b", "latest", None),
        ("library/busybox", "docker.io", "busybox", "latest", None),
        ("index.docker.io/library/busybox:1", "docker.io", "busybox", "1", None),
        ("docker.io/user/x", "docker.io", "user/x", "latest", None),
        ("a/b/c:1", "docker.io", "a/b/c", "1", None),
        ("x:A_b.C-1", "docker.io", "x", "A_b.C-1", None),
        (f"x:{TAG_128}", "docker.io", "x", TAG_128, None),
        ("docker.io/a.b_c__d-e---f/g", "docker.io", "a.b_c__d-e---f/g", "latest", None),
        (f"host:5000/x:1@sha256:{HEX}", "host:5000", "x", "1", DIGEST),
    ],
)
def test_parts(text: str, registry: str, repository: str, tag: str | None, digest: Digest | None) -> None:
    assert Reference.parse(text) == Reference(registry, repository, tag, digest)


@pytest.mark.conforms("W2")
@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        # library/ only where Docker Hub has it (docs/conformance.md#w2).
        ("busybox", "docker.io/library/busybox:latest"),
        ("docker://busybox", "docker.io/library/busybox:latest"),
        ("library/busybox:latest", "docker.io/library/busybox:latest"),
        ("docker.io/library/busybox", "docker.io/library/busybox:latest"),
        ("docker://busybox:1", "docker.io/library/busybox:1"),
        ("user/x:1", "docker.io/user/x:1"),
        ("quay.example.com/b:1", "quay.example.com/b:1"),
        ("quay.example.com/a/b:1", "quay.example.com/a/b:1"),
        ("a/b/c:1", "docker.io/a/b/c:1"),
        ("localhost:5000/b", "localhost:5000/b:latest"),
        (f"busybox@sha256:{HEX}", f"docker.io/library/busybox@sha256:{HEX}"),
        (f"busybox:1@sha256:{HEX}", f"docker.io/library/busybox:1@sha256:{HEX}"),
    ],
)
def test_canonical(text: str, canonical: str) -> None:
    assert Reference.parse(text).canonical == canonical


@pytest.mark.conforms("W2")
def test_another_default_registry() -> None:
    assert Reference.parse("b:1", default_registry="quay.example.com").canonical == "quay.example.com/b:1"
    assert Reference.parse("docker.io/b:1", default_registry="quay.example.com").registry == "docker.io"


@pytest.mark.parametrize(
    ("text", "familiar"),
    [
        ("docker.io/library/busybox", "busybox:latest"),
        ("docker.io/user/x:1", "user/x:1"),
        ("quay.example.com/a/b", "quay.example.com/a/b:latest"),
        # Shortened, these would name another registry.
        ("docker.io/user.name/x:1", "docker.io/user.name/x:1"),
        ("docker.io/localhost/x:1", "docker.io/localhost/x:1"),
    ],
)
def test_familiar(text: str, familiar: str) -> None:
    assert Reference.parse(text).familiar_name == familiar


@pytest.mark.conforms("K2", "S5")
@pytest.mark.parametrize(
    ("text", "link_name"),
    [
        ("busybox", "busybox:latest"),
        ("docker.io/library/busybox:1", "docker.io/library/busybox:1"),
        ("host:443/p:t", "host/p:t"),
        ("[::1]:443/p", "[::1]/p:latest"),
        ("host:8888/p:t", "host:8888/p:t"),
        ("host:4430/p:t", "host:4430/p:t"),
        (f"repo@sha256:{HEX}", f"repo@sha256:{HEX}"),
        (f"repo:1@sha256:{HEX}", "repo:1"),
    ],
)
def test_link_name(text: str, link_name: str) -> None:
    assert Reference.parse(text).link_name == link_name


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "@",
        "a:",
        "a@",
        ":tag",
        "/a",
        "a/",
        "a//b",
        "A",
        "a/B",
        "-a",
        "a-",
        ".a",
        "a..b",
        "a___b",
        "a b",
        "a\n",
        "a:b\n",
        "ä",
        "a:ä",
        "a:-x",
        "a:.x",
        f"a:{'t' * 129}",
        "../a",
        "a/../b",
        "http://a/b",
        "docker://docker://a",
        "docker://",
        "host:port/a",
        "host:/a",
        "-host.example.com/a",
        "[::1/a",
        "[g::1]/a",
        "::1/a",
        "a@sha256:12",
        f"a@sha256:{HEX.upper()}",
        f"a@sha256:{HEX}0",
        f"a@{HEX}",
        f"a@sha256:{HEX}@sha256:{HEX}",
        f"@sha256:{HEX}",
        HEX + "\n",
        "a\0",
        "\ud800",
        "--help",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(BadReference):
        Reference.parse(text)


@pytest.mark.parametrize("form", ["{}", "{}:1", "docker.io/library/{}", "library/{}", "host.example.com:5000/{}"])
def test_a_repository_has_255_characters_at_most(form: str) -> None:
    """However a name is spelled, so that the canonical spelling of a good name is good."""
    Reference.parse(Reference.parse(form.format("x" * 255)).canonical)
    with pytest.raises(BadReference, match="255"):
        Reference.parse(form.format("x" * 256))


def test_a_message_says_what_is_wrong() -> None:
    with pytest.raises(BadReference, match="upper-case"):
        Reference.parse("user/Image")
    with pytest.raises(BadReference, match="not a tag"):
        Reference.parse("user/image:")
    with pytest.raises(BadReference, match="host and port"):
        Reference.parse("ho$t.example.com/image")


@pytest.mark.conforms("K11", "S2")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HEX, ImageId(HEX)),
        (f"sha256:{HEX}", ImageId(HEX)),
        ("sha256:abc", ImageId("abc")),
        (HEX[:12], Reference("docker.io", HEX[:12], "latest")),
        ("sha:latest", Reference("docker.io", "sha", "latest")),
        ("sha256", Reference("docker.io", "sha256", "latest")),
        (f"repo@sha256:{HEX}", Reference("docker.io", "repo", None, DIGEST)),
    ],
)
def test_what_a_user_may_write(text: str, expected: Reference | ImageId) -> None:
    assert parse_name(text) == expected


@pytest.mark.conforms("K11", "S1")
@pytest.mark.parametrize("text", ["sha256:", "sha256:latest", f"sha256:{HEX}0", f"sha256:{HEX.upper()}", "sha256:%"])
def test_a_text_with_sha256_in_front_is_an_id_or_nothing(text: str) -> None:
    with pytest.raises(BadReference):
        parse_name(text)


def test_a_short_hex_number_may_also_be_an_id() -> None:
    twelve, three, tagged = parse_name(HEX[:12]), parse_name("abc"), parse_name("abcd:1")
    assert isinstance(twelve, Reference)
    assert twelve.as_id == ImageId(HEX[:12])
    assert isinstance(three, Reference)
    assert three.as_id is None
    assert isinstance(tagged, Reference)
    assert tagged.as_id is None


def test_image_id() -> None:
    assert ImageId(HEX[:12]).matches(DIGEST)
    assert not ImageId("00").matches(DIGEST)
    assert not ImageId(HEX[:12]).matches(Digest("sha512", HEX * 2))
    assert ImageId(HEX).as_digest == DIGEST
    assert ImageId(HEX[:12]).as_digest is None
    assert str(ImageId(HEX)) == f"sha256:{HEX}"


@pytest.mark.conforms("K2")
@pytest.mark.parametrize(
    ("image", "tag", "link_name"),
    [
        ("busybox", None, "busybox:latest"),
        ("busybox", "1", "busybox:1"),
        ("host:5000/r", "t", "host:5000/r:t"),
        ("[::1]:8888/r", "t", "[::1]:8888/r:t"),
        ("host:443/r", "t", "host/r:t"),
        ("docker://busybox", "1", "busybox:1"),
        ("images", "latest", "images:latest"),
    ],
)
def test_image_and_tag_arguments(image: str, tag: str | None, link_name: str) -> None:
    name = name_from_arguments(image, tag)
    assert isinstance(name, Reference)
    assert name.link_name == link_name


@pytest.mark.conforms("K2")
@pytest.mark.parametrize(
    ("image", "tag"), [("repo:tag", "extra"), (f"sha256:{HEX}", "x"), (HEX, "x"), (f"r@sha256:{HEX}", "x")]
)
def test_a_tag_given_twice_ends_with_exit_code_1(image: str, tag: str) -> None:
    with pytest.raises(ArvDockerError) as caught:
        name_from_arguments(image, tag)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("tag", ["", "5000/other", f"x@sha256:{HEX}", "a:b", "-x", "t" * 129])
def test_a_tag_argument_is_a_tag(tag: str) -> None:
    """And cannot turn the image into a registry's port or bring a digest in."""
    with pytest.raises(BadReference):
        name_from_arguments("busybox", tag)


# -- properties -------------------------------------------------------------------------

_component = st.from_regex(r"[a-z0-9]{1,6}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}", fullmatch=True)
_repository = st.lists(_component, min_size=1, max_size=4).map("/".join)
_label = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9-]{0,5}[A-Za-z0-9])?", fullmatch=True)
_host = st.one_of(
    st.tuples(_label, _label).map(".".join), st.just("localhost"), st.sampled_from(["[::1]", "[fe80::1]", "HOST"])
)
_port = st.one_of(st.just(""), st.integers(1, 65535).map(lambda port: f":{port}"))
_registry = st.one_of(st.just("docker.io"), st.tuples(_host, _port).map("".join))
_tag = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", fullmatch=True)
_digest = st.one_of(
    st.from_regex(r"[0-9a-f]{64}", fullmatch=True).map(lambda digits: Digest("sha256", digits)),
    st.from_regex(r"[0-9a-f]{128}", fullmatch=True).map(lambda digits: Digest("sha512", digits)),
)


@st.composite
def _texts(draw: st.DrawFn) -> str:
    repository = draw(_repository)
    registries = _registry.map(lambda text: f"{text}/")
    if "/" not in repository or "." not in repository.partition("/")[0]:  # else its beginning is a registry
        registries = st.one_of(st.just(""), registries)
    registry = draw(registries)
    tag = draw(st.one_of(st.just(""), _tag.map(lambda text: f":{text}")))
    digest = draw(st.one_of(st.just(""), _digest.map(lambda value: f"@{value}")))
    return f"{registry}{repository}{tag}{digest}"


@pytest.mark.conforms("W2")
@given(_texts())
def test_every_spelling_of_a_name_is_that_name(text: str) -> None:
    name = Reference.parse(text)
    assert str(name) == text
    for spelling in (name.canonical, name.familiar_name, f"docker://{text}"):
        assert Reference.parse(spelling) == name
    assert Reference.parse(name.canonical).canonical == name.canonical
    assert Reference.parse(name.familiar_name).familiar_name == name.familiar_name


@given(_texts())
def test_name_tag_and_digest_make_up_what_was_written(text: str) -> None:
    name = Reference.parse(text)
    tag = f":{name.tag}" if name.tag and f":{name.tag}" in text else ""
    assert text in (f"{name.name}{tag}{'@' + str(name.digest) if name.digest else ''}", name.name)


_odd = st.text(st.sampled_from("abzAZ019.:/@_-[]%\\\n \0é\ud800"), max_size=40)


@given(st.one_of(st.text(), _odd, _texts().flatmap(lambda text: _odd.map(lambda odd: text + odd))))
@example("docker.io/" + "a" * 255)
def test_any_text_is_a_name_that_reads_back_or_refused(text: str) -> None:
    for parse in (Reference.parse, parse_name):
        try:
            name = parse(text)
        except BadReference:
            continue
        assert parse_name(str(name)) == name
        if isinstance(name, Reference):
            assert Reference.parse(name.canonical) == name
            assert Reference.parse(name.familiar_name) == name


@given(st.text(max_size=30), st.one_of(st.none(), st.text(max_size=30), _tag))
def test_arguments_never_raise_anything_but_ours(image: str, tag: str | None) -> None:
    try:
        name = name_from_arguments(image, tag)
    except ArvDockerError:
        return
    if tag is not None:
        assert isinstance(name, Reference)
        assert name.tag == tag


UNIQUE_ID = Digest.sha256("b038788ddb2" + "0" * 53)


@pytest.mark.conforms("H1", "H2")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hello:1", "hello:1-b038788ddb"),
        ("hello", "hello:latest-b038788ddb"),
        ("localhost:5000/x:1", "localhost:5000/x:1-b038788ddb"),
        (f"x@sha256:{'1' * 64}", "x:latest-b038788ddb"),
        (f"x:2@sha256:{'1' * 64}", "x:2-b038788ddb"),
        ("deadbeef", "deadbeef:latest-b038788ddb"),
        (f"x:{'t' * 128}", f"x:{'t' * 117}-b038788ddb"),
    ],
)
def test_a_name_that_can_never_mean_another_image(text: str, expected: str) -> None:
    unique = Reference.parse(text).unique_for(UNIQUE_ID)
    assert unique.familiar_name == expected
    assert Reference.parse(unique.familiar_name) == unique
    assert unique == Reference.parse(text).unique_for(UNIQUE_ID)
    assert unique != Reference.parse(text).unique_for(Digest.sha256("c" * 64))
