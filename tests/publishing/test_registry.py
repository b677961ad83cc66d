# SPDX-License-Identifier: Apache-2.0
"""A registry as a place to publish images: names, repositories, readiness, deletion."""

from __future__ import annotations

import base64
import gzip
import json
import time
from collections.abc import Container, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from arv_docker.archive.layer import Layer
from arv_docker.archive.opened_image import OpenedImage
from arv_docker.errors import (
    ArvDockerError,
    BadReference,
    NotReady,
    RegistryDenied,
    RegistryError,
    UnsupportedByRegistry,
    UsageError,
)
from arv_docker.model.image import Config, Digest
from arv_docker.model.reference import parse_name
from arv_docker.publishing.registry import Registry
from arv_docker.registry import pages
from arv_docker.registry.access import Access
from arv_docker.registry.credentials import Credentials, static_provider
from arv_docker.registry.project import Project
from arv_docker.registry.services import PlainService
from arv_docker.store.cache import CacheFolder
from arv_docker.store.tarballs import cache_folder

from .. import archives
from ..registry import scripted
from ..registry.conftest import registry, tokens, waited
from ..registry.scripted import Conversation, TokenServer, Waited, running
from ..registry.service import SECRET, ProjectService

__all__ = ["registry", "tokens", "waited"]

IMAGE = archives.image(b"first".ljust(2048), b"second".ljust(1024), os="linux")
OTHER = archives.image(b"other".ljust(2048), os="linux")


class Held(OpenedImage):
    """An image in memory."""

    def __init__(self, image: archives.Image) -> None:
        self._image = image

    @property
    def config(self) -> Config:
        return self._image.parsed

    def layers(self, skip: Container[Digest] = ()) -> Iterator[Layer]:
        return (self._image.layer(it) for it in self.config.distinct_diff_ids if it not in skip)


def publisher(server: scripted.Registry, folder: str = "", **more: object) -> Registry:
    more = {"access": Access.of_user(), "cache": CacheFolder(cache_folder), **more}
    return Registry(f"{server.host}{folder}", insecure=True, **more)  # type: ignore[arg-type]


def push(publisher: Registry, image: archives.Image, name: str) -> None:
    publisher.push(Held(image), name, lambda count: None)


@pytest.fixture
def service(registry: scripted.Registry) -> Iterator[ProjectService]:
    server = ProjectService(registry)
    with running(server):
        yield server


def project(service: ProjectService, waited: Waited) -> Registry:
    made = Project(service.url, "p1", static_provider("", SECRET), patience=waited.patience)
    return Registry(
        service.registry.host,
        made.credentials,
        service=lambda *_: made,
        insecure=True,
        patience=waited.patience,
    )


# -- names -------------------------------------------------------------------------------------


@pytest.mark.conforms("H1", "H2")
@pytest.mark.parametrize(
    ("called", "tags", "expected"),
    [
        ("hello:1", (), "hello:1-b038788ddb"),
        ("hello", (), "hello:latest-b038788ddb"),
        ("localhost:5000/tools/x:1", (), "tools/x:1-b038788ddb"),
        (f"x@sha256:{'1' * 64}", (), "x:latest-b038788ddb"),
        ("sha256:b038", ("quay.io/a/b:2", "c:3"), "a/b:2-b038788ddb"),
        ("sha256:b038", ("<none>:<none>",), "image:latest-b038788ddb"),
        (None, ("c:3",), "c:3-b038788ddb"),
        (f"x:{'t' * 128}", (), f"x:{'t' * 117}-b038788ddb"),
    ],
)
def test_unique_names(registry: scripted.Registry, called: str | None, tags: tuple[str, ...], expected: str) -> None:
    image_id = Digest.sha256("b038788ddb2" + "0" * 53)
    name = publisher(registry).name_of(image_id, parse_name(called) if called else None, tags)
    assert name == expected
    assert name != publisher(registry).name_of(Digest.sha256("c" * 64), parse_name("hello:1"))


@pytest.mark.conforms("H3", "H6")
def test_a_name_is_used_exactly_and_the_image_can_be_had_by_it(registry: scripted.Registry) -> None:
    push(publisher(registry), IMAGE, "tools/app:Given_1.0")
    described = json.loads(registry.manifests["tools/app", "Given_1.0"][1])
    assert described["config"]["digest"] == str(IMAGE.parsed.digest)
    assert [gzip.decompress(registry.blobs[it["digest"]]) for it in described["layers"]] == list(IMAGE.layers)


@pytest.mark.conforms("H11")
@pytest.mark.parametrize(
    "name", ["a;rm -rf x:1", "$(x):1", "UPPER:1", "x:1 2", "x@sha256:" + "0" * 64, "other.example/x:1/"]
)
def test_what_is_no_name(registry: scripted.Registry, name: str) -> None:
    for act in (partial(push, publisher(registry), IMAGE), publisher(registry).status, publisher(registry).delete):
        with pytest.raises(UsageError):
            act(name)
    assert registry.seen == []


@pytest.mark.parametrize("url", ["", "x", "http://", "ftp://127.0.0.1/x", "127.0.0.1:1/UP"])
def test_what_is_no_registry(url: str) -> None:
    with pytest.raises(BadReference, match="no registry"):
        Registry(url)


@pytest.mark.parametrize(
    "url", ["https://ann:hidden@registry.example", "hidden@localhost:5000", "http://:hidden@[::1]"]
)
def test_an_address_with_a_secret_is_not_shown(url: str) -> None:
    with pytest.raises(BadReference, match="a name or a password in its address") as caught:
        Registry(url)
    assert "hidden" not in str(caught.value)
    with pytest.raises(UsageError) as refused:
        Project(f"https://{url.rpartition('/')[2]}", "p1", static_provider("", SECRET))
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize("url", ["https://reg.example/team/", "reg.example/team", "docker://reg.example/team"])
def test_how_a_registry_is_written(url: str) -> None:
    assert Registry(url).host == "reg.example"


def test_a_folder_of_a_registry(registry: scripted.Registry) -> None:
    push(publisher(registry), OTHER, "elsewhere:1")
    team = publisher(registry, "/team/")
    push(team, IMAGE, "app:1")
    assert ("team/app", "1") in registry.manifests
    assert (list(team.repositories()), list(team.images())) == (["app"], ["app:1"])
    assert (team.status("app:1"), team.status("elsewhere:1")) == ("ready", "absent")
    assert team.delete("app:1")
    assert ("elsewhere", "1") in registry.manifests


# -- a plain registry ---------------------------------------------------------------------------


def test_credentials_for_one_repository_alone(registry: scripted.Registry, home: Path) -> None:
    """As `podman login HOST/REPOSITORY` leaves them."""
    registry.users = {"ann": "the password"}
    right, wrong = (base64.b64encode(text).decode() for text in (b"ann:the password", b"bob:other"))
    auths = {registry.host: {"auth": wrong}, f"{registry.host}/team/tools/app": {"auth": right}}
    (home / ".docker").mkdir()
    (home / ".docker" / "config.json").write_text(json.dumps({"auths": auths}))
    ours = publisher(registry, "/team")
    push(ours, IMAGE, "tools/app:1")
    assert publisher(registry).status("team/tools/app:1") == "ready"
    for name in ("team/tools/other:1", "other:1"):
        with pytest.raises(RegistryDenied):
            publisher(registry).status(name)
    mixed = publisher(registry)
    with pytest.raises(RegistryDenied):
        mixed.status("other:1")
    assert mixed.status("team/tools/app:1") == "ready"


@pytest.mark.conforms("H12")
def test_lists_over_several_pages(registry: scripted.Registry) -> None:
    registry.page = 2
    expected = [f"app{number}" for number in range(5)]
    for name in expected:
        for tag in ("1", "2", "3"):
            registry.put_manifest(name, tag, b"{}")
    assert list(publisher(registry).repositories()) == expected
    assert list(publisher(registry).images()) == [f"{name}:{tag}" for name in expected for tag in "123"]


def test_a_registry_without_a_list(registry: scripted.Registry) -> None:
    registry.fault = lambda conversation: "_catalog" in conversation.path and conversation.refuse(404, "UNSUPPORTED")
    with pytest.raises(UnsupportedByRegistry, match="listing repositories: unsupported"):
        list(publisher(registry).repositories())


@pytest.mark.parametrize("address", ["https://other.example", "//other.example", "http://127.0.0.1:1"])
def test_a_next_page_is_asked_for_here(registry: scripted.Registry, address: str) -> None:
    """A registry behind a proxy may not know its own name; a list that was cut short would be taken for the whole."""

    def fault(conversation: Conversation) -> bool:
        if "last=a" in conversation.path:
            return conversation.answer(200, b'{"repositories": ["b"]}')
        more = f'<{address}/v2/_catalog?last=a&n=1>; rel="next"'
        return conversation.answer(200, b'{"repositories": ["a"]}', Link=more)

    registry.fault = fault
    assert list(publisher(registry).repositories()) == ["a", "b"]


def test_a_registry_that_gives_fewer_names_at_once(registry: scripted.Registry) -> None:
    """As distribution, where its settings say so: it refuses to be asked for more."""
    registry.page = 2
    for name in "abc":
        registry.put_manifest(name, "1", b"{}")
    registry.fault = lambda it: "n=1000" in it.path and it.refuse(400, "PAGINATION_NUMBER_INVALID")
    assert list(publisher(registry).images()) == ["a:1", "b:1", "c:1"]
    registry.fault = lambda it: it.refuse(400, "NAME_INVALID")
    with pytest.raises(RegistryError, match="listing repositories: the registry answers 400"):
        list(publisher(registry).images())


def test_a_list_without_end(registry: scripted.Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_MAX_PAGES", 20)

    def fault(conversation: Conversation) -> bool:
        more = f'</v2/_catalog?last={len(registry.seen)}>; rel="next"'
        return conversation.answer(200, b'{"repositories": ["a"]}', Link=more)

    registry.fault = fault
    with pytest.raises(RegistryError, match="more than 20 pages"):
        list(publisher(registry).repositories())
    assert len(registry.seen) <= 21


def test_a_repository_without_tags(registry: scripted.Registry) -> None:
    """As Go writes it."""
    registry.put_manifest("app", "1", b"{}")
    registry.fault = lambda it: "/tags/" in it.path and it.answer(200, b'{"name": "app", "tags": null}')
    assert list(publisher(registry).images()) == []


@pytest.mark.parametrize("body", [b"[]", b'{"repositories": [1]}', b"{"])
def test_a_list_that_is_none(registry: scripted.Registry, body: bytes) -> None:
    registry.fault = lambda conversation: conversation.answer(200, body)
    with pytest.raises(ArvDockerError):
        list(publisher(registry).repositories())


@pytest.mark.parametrize("status", [200, 400, 401, 403, 405, 410, 451])
def test_one_repository_that_is_not_listed_leaves_the_others_listed(registry: scripted.Registry, status: int) -> None:
    for name in ("a:1", "m:1", "z:1"):
        push(publisher(registry), IMAGE, name)
    registry.fault = lambda it: "/m/tags/" in it.path and it.answer(status, b"<html>")
    listed: list[str] = []
    reason = "no list" if status == 200 else f"status {status}"
    with pytest.raises(RegistryError, match=rf"1 of its repositories: m \({reason}\)\. The others") as caught:
        listed.extend(publisher(registry).images())
    assert listed == ["a:1", "z:1"]
    assert isinstance(caught.value, RegistryDenied) == (status in (401, 403))


def test_a_registry_in_trouble_is_not_asked_for_each_repository(registry: scripted.Registry, waited: Waited) -> None:
    for name in ("a:1", "m:1", "z:1"):
        push(publisher(registry), IMAGE, name)
    registry.fault = lambda it: "/m/tags/" in it.path and it.answer(503)
    listed: list[str] = []
    with pytest.raises(RegistryError, match="answers 503"):
        listed.extend(publisher(registry, patience=waited.patience).images())
    assert listed == ["a:1"]
    assert len(registry.received("/m/tags/")) == 6


def test_what_belongs_to_an_image_is_no_image(registry: scripted.Registry) -> None:
    """Signatures, attestations and SBOMs as cosign names them, and the list of referrers; they are tags, though."""
    push(publisher(registry), IMAGE, "app:1")
    others = [f"sha256-{'0' * 64}{end}" for end in ("", ".sig", ".att", ".sbom")]
    for tag in (*others, "sha256-app", "signature.sig"):
        push(publisher(registry), IMAGE, f"app:{tag}")
    assert list(publisher(registry).images()) == ["app:1", "app:sha256-app", "app:signature.sig"]
    assert set(publisher(registry).tags("app")) >= set(others)


@pytest.mark.conforms("H13")
def test_what_is_there_is_ready(registry: scripted.Registry) -> None:
    push(publisher(registry), IMAGE, "app:1")
    assert publisher(registry).status("app:1") == "ready"
    assert publisher(registry).status("app:2") == publisher(registry).status("unknown") == "absent"


def test_asking_is_no_pull(registry: scripted.Registry) -> None:
    """Docker Hub counts manifests that are read; who waits would use up what is allowed."""
    push(publisher(registry), IMAGE, "app:1")
    assert publisher(registry).status("app:1") == "ready"
    assert not registry.received("GET .*manifests")
    registry.fault = lambda it: it.command == "HEAD" and it.answer(405)
    assert publisher(registry).status("app:1") == "ready"
    assert publisher(registry).status("app:2") == "absent"
    for status in (401, 403):
        registry.fault = lambda it, status=status: it.refuse(status, "DENIED_FOR_A_TEST")  # type: ignore[misc]
        with pytest.raises(RegistryDenied) as caught:
            publisher(registry).status("app:1")
        assert "DENIED_FOR_A_TEST: denied for a test" in caught.value.detail


@pytest.mark.conforms("H15")
def test_deleted_is_gone(registry: scripted.Registry) -> None:
    push(publisher(registry), IMAGE, "app:1")
    assert publisher(registry).delete("app:1")
    assert publisher(registry).status("app:1") == "absent"
    assert not publisher(registry).delete("app:1")


def by_digest_alone(conversation: Conversation) -> bool:
    """As distribution 2.8 has it: no tag is deleted but with the image."""
    if conversation.command != "DELETE" or "sha256:" in conversation.path:
        return False
    return conversation.refuse(405, "UNSUPPORTED")


@pytest.mark.conforms("H15")
def test_an_image_that_has_other_names_is_not_deleted_with_them(registry: scripted.Registry) -> None:
    for name in ("app:1", "app:2"):
        push(publisher(registry), IMAGE, name)
    push(publisher(registry), OTHER, "app:3")
    registry.fault = by_digest_alone
    with pytest.raises(UnsupportedByRegistry, match="this one is also 2"):
        publisher(registry).delete("app:1")
    assert publisher(registry).status("app:1") == "ready"
    assert publisher(registry).delete("app:3")
    assert publisher(registry).status("app:3") == "absent"


@pytest.mark.conforms("H15")
@pytest.mark.parametrize("status", [403, 405])
def test_a_registry_that_deletes_nothing(registry: scripted.Registry, status: int) -> None:
    push(publisher(registry), IMAGE, "app:1")
    registry.fault = lambda it: it.command == "DELETE" and it.refuse(status, "DENIED_FOR_A_TEST")
    with pytest.raises(UnsupportedByRegistry, match="unsupported") as caught:
        publisher(registry).delete("app:1")
    assert caught.value.detail == "DENIED_FOR_A_TEST: denied for a test"


@pytest.mark.conforms("H15")
def test_a_registry_that_knows_no_deleting(registry: scripted.Registry) -> None:
    """It says that there is no such page: that is not that there is no such image."""
    push(publisher(registry), IMAGE, "app:1")
    registry.fault = lambda it: it.command == "DELETE" and it.answer(404, b"page not found")
    with pytest.raises(UnsupportedByRegistry, match="deleting app:1: unsupported"):
        publisher(registry).delete("app:1")
    registry.fault = lambda it: it.command == "DELETE" and "sha256" not in it.path and it.answer(404)
    assert publisher(registry).delete("app:1")
    assert publisher(registry).status("app:1") == "absent"


# -- repositories that must be created ----------------------------------------------------------


@pytest.mark.conforms("H5")
def test_a_missing_repository_is_created_once_by_a_command(registry: scripted.Registry, tmp_path: Path) -> None:
    """A registry as Amazon's takes nothing for a repository that is not there."""
    script = tmp_path / "create"
    script.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/created\n')
    script.chmod(0o755)

    def fault(conversation: Conversation) -> bool:
        created = (tmp_path / "created").exists()
        if conversation.command == "POST" and not created:
            return conversation.refuse(404, "NAME_UNKNOWN")
        return False

    registry.fault = fault
    ours = publisher(registry, "/team", service=partial(PlainService, command=[str(script), "--name"]))
    push(ours, IMAGE, "app:1")
    push(ours, OTHER, "app:2")
    assert (tmp_path / "created").read_text() == "--name team/app\n"
    assert not ours.create("app")
    assert not publisher(registry).create("app")


@pytest.mark.conforms("H5")
def test_a_repository_that_another_push_creates_meanwhile(registry: scripted.Registry, tmp_path: Path) -> None:
    """The command says that it is there, and fails; that is no failure of the push."""
    script = tmp_path / "create"
    script.write_text(f"#!/bin/sh\ntouch {tmp_path}/created; echo it exists >&2; exit 254\n")
    script.chmod(0o755)

    def fault(conversation: Conversation) -> bool:
        if (tmp_path / "created").exists():
            registry.repositories.setdefault("app", set())
        return False

    registry.fault = fault
    push(publisher(registry, service=partial(PlainService, command=[str(script)])), IMAGE, "app:1")
    assert ("app", "1") in registry.manifests


@pytest.mark.conforms("H5")
def test_a_repository_that_may_not_be_created(registry: scripted.Registry) -> None:
    denied = ["sh", "-c", "echo you may not >&2; exit 254"]
    ours = publisher(registry, service=partial(PlainService, command=denied))
    with pytest.raises(RegistryError, match="creating repository app: sh ended with 254") as caught:
        push(ours, IMAGE, "app:1")
    assert caught.value.detail == "you may not"
    with pytest.raises(RegistryError, match="cannot be run"):
        push(publisher(registry, service=partial(PlainService, command=["/nowhere/to/be/found"])), IMAGE, "app:1")
    assert registry.manifests == {}


# -- a service beside the registry --------------------------------------------------------------


@pytest.mark.conforms("H5", "H12", "H13")
def test_a_service_creates_lists_and_knows(service: ProjectService, waited: Waited) -> None:
    service.registry.users = {"AWS": service.token}
    with closing(project(service, waited)) as ours:
        assert list(ours.images()) == []
        push(ours, IMAGE, "app:1")
        assert list(ours.images()) == ["app:1"]
        assert list(ours.repositories()) == service.repositories == ["app"]
        assert (ours.status("app:1"), ours.status("unknown:1")) == ("ready", "absent")
        assert ours.create("other")
        assert ours.token() == "registry-token-1"
    assert f"POST {service.path}/container-registry/repo/app" in service.seen
    assert sum("container-registry/token" in line for line in service.seen) == 1


@pytest.mark.conforms("H14")
def test_pending_then_ready(service: ProjectService, waited: Waited) -> None:
    service.registry.users = {"AWS": service.token}
    ours = project(service, waited)
    push(ours, IMAGE, "app:1")
    service.pending = 12
    assert ours.status("app:1") == "pending"
    ours.wait("app:1", 600)
    assert waited.seconds[:3] == [1.0, 1.5, 2.25]
    assert waited.seconds == sorted(waited.seconds)
    assert max(waited.seconds) == 15


@pytest.mark.conforms("H14")
def test_never_ready(service: ProjectService, waited: Waited) -> None:
    service.registry.users = {"AWS": service.token}
    push(project(service, waited), IMAGE, "app:1")
    service.pending = None
    with pytest.raises(NotReady, match=r"app:1 is pending after 0\.05 s") as caught:
        project(service, waited).wait("app:1", 0.05)
    assert caught.value.exit_code == 10
    with pytest.raises(NotReady, match="app:2 is absent"):
        project(service, waited).wait("app:2", 0)


@pytest.mark.conforms("H15")
def test_a_service_that_has_withdrawn_deleting(service: ProjectService, waited: Waited) -> None:
    service.registry.users = {"AWS": service.token}
    ours = project(service, waited)
    push(ours, IMAGE, "app:1")
    for status in (403, 404, 405):
        service.deletes = status
        with pytest.raises(UnsupportedByRegistry, match="unsupported"):
            ours.delete("app:1")
    service.deletes = None
    assert ours.delete("app:1")
    assert not ours.delete("app:1")


@pytest.mark.conforms("H5", "H18")
def test_a_service_that_creates_nothing(service: ProjectService, waited: Waited) -> None:
    with pytest.raises(RegistryDenied, match="creating repository forbidden: the service answers 403") as caught:
        push(project(service, waited), IMAGE, "forbidden:1")
    assert "no new repositories for you" in caught.value.detail
    assert service.registry.seen == []


@pytest.mark.conforms("H8")
def test_a_token_of_the_service_that_expires_is_asked_for_anew(service: ProjectService, waited: Waited) -> None:
    service.registry.users = {"AWS": service.token}
    ours = project(service, waited)
    push(ours, IMAGE, "app:1")
    service.token = "registry-token-2"
    service.registry.users = {"AWS": service.token}
    push(ours, OTHER, "app:2")
    assert sum("container-registry/token" in line for line in service.seen) == 2


@pytest.mark.conforms("H10")
def test_a_secret_of_the_service_that_is_refused(service: ProjectService) -> None:
    ours = Project(service.url, "p1", static_provider("", "a wrong secret"))
    with pytest.raises(RegistryDenied, match="answers 401") as caught:
        list(ours.images())
    assert "a wrong secret" not in str(caught.value)


def test_answers_of_a_service_that_mean_nothing(service: ProjectService, waited: Waited) -> None:
    made = Project(service.url, "p1", static_provider("", SECRET), patience=waited.patience)
    service.token = ""
    with pytest.raises(RegistryError, match="has no token"):
        made.credentials()
    push(publisher(service.registry), IMAGE, "app:1")
    service.ready = "HALF"
    with pytest.raises(RegistryError, match="the status 'HALF' is unknown"):
        made.status("app:1")
    service.ready = "READY"
    service.deletes = 409
    with pytest.raises(RegistryError, match="deleting app:1: the service answers 409"):
        made.delete("app:1")
    service.repositories = [1]  # type: ignore[list-item]
    with pytest.raises(RegistryError, match="no list of repositories"):
        made.repositories()


def test_a_secret_of_the_service_that_was_changed_is_asked_for_anew(service: ProjectService) -> None:
    secrets = iter(["old", SECRET])
    made = Project(service.url, "p1", lambda: Credentials("", next(secrets)))
    assert list(made.images()) == []


@pytest.mark.conforms("H8")
def test_the_key_of_the_service_is_exchanged_once_and_again_before_its_token_expires(
    service: ProjectService, waited: Waited
) -> None:
    """As the public client does, with ``/auth/token``."""
    made = Project(service.url, "p1", static_provider("", SECRET), patience=waited.patience)
    list(made.images())
    list(made.images())
    assert service.bearers == ["bearer-1"]
    service.lifetime = 0.001
    other = Project(service.url, "p1", static_provider("", SECRET), patience=waited.patience)
    list(other.images())
    time.sleep(0.01)
    list(other.images())
    assert service.bearers == ["bearer-1", "bearer-2", "bearer-3"]


def test_a_token_of_the_service_that_is_refused_is_exchanged_anew(service: ProjectService, waited: Waited) -> None:
    made = Project(service.url, "p1", static_provider("", SECRET), patience=waited.patience)
    list(made.images())
    service.bearers.append("somebody else's")
    list(made.images())
    assert len(service.bearers) == 3


@pytest.mark.parametrize("lifetime", [None, "soon", True, -1])
def test_a_token_of_the_service_that_does_not_say_how_long_it_lives(
    service: ProjectService, waited: Waited, lifetime: object
) -> None:
    service.lifetime = lifetime
    made = Project(service.url, "p1", static_provider("", SECRET), patience=waited.patience)
    assert list(made.images()) == list(made.images()) == []
    assert len(service.bearers) == 1


@pytest.mark.parametrize("body", ["<html>Log in</html>", "[]", "", "{"])
@pytest.mark.parametrize("path", ["/auth/token", "/container-registry/images"])
def test_an_answer_that_is_no_json_is_an_error_of_the_registry(
    service: ProjectService, waited: Waited, body: str, path: str
) -> None:
    service.bodies[path] = body
    made = Project(service.url, "p1", static_provider("", SECRET), patience=waited.patience)
    with pytest.raises(RegistryError, match=r"something else than a JSON object|gives no token") as caught:
        list(made.images())
    assert caught.value.exit_code == 9
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("url", ["https://ann:Hunter2@a.example", "https://ann:Hunt/er2@a.example", "ann:Hunter2@a"])
def test_a_password_in_the_address_of_a_service_is_not_shown(url: str) -> None:
    with pytest.raises(UsageError, match="a name or a password in its address") as caught:
        Project(url, "p1", static_provider("", "x"))
    assert "Hunt" not in str(caught.value)


@pytest.mark.parametrize(("url", "name"), [("http://service.example", "p"), ("x", "p"), ("https://a.example", "a/b")])
def test_what_is_no_service(url: str, name: str) -> None:
    with pytest.raises(UsageError):
        Project(url, name, static_provider("", "x"))


# -- tokens ------------------------------------------------------------------------------------


@pytest.mark.conforms("H9")
def test_a_fresh_token_serves_for_two_pushes(registry: scripted.Registry, tokens: TokenServer) -> None:
    registry.bearer = tokens
    tokens.users = {"ann": "the password"}
    asked = []

    def provider() -> Credentials:
        asked.append(1)
        return Credentials("ann", "the password")

    ours = publisher(registry, credentials=provider)
    push(ours, IMAGE, "app:1")
    push(ours, OTHER, "app:2")
    assert len(asked) == 1
    assert tokens.given == 1


def test_no_credentials_at_all(registry: scripted.Registry) -> None:
    with pytest.raises(RegistryDenied, match="there are no credentials"):
        publisher(registry).token()
