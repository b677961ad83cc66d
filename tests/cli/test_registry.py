# SPDX-License-Identifier: Apache-2.0
"""`arv-docker registry`: what is printed where, and the exit codes."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from arv_docker.cli import registry as verb
from arv_docker.errors import NoSuchImage
from arv_docker.local.progress import size_text
from arv_docker.registry import http
from arv_docker.registry.client import Client, Document
from arv_docker.registry.patience import Patience
from arv_docker.transports import docker_daemon
from arv_docker.transports import registry as source

from ..archives import classic, files_of, image
from ..arvados.fake_api import OTHER, FakeApi
from ..registry.conftest import registry, tokens, waited
from ..registry.scripted import Conversation, Registry, TokenServer, running, sha256
from ..registry.service import SECRET, ProjectService
from ..transports.fake_engine import FakeEngine
from .conftest import APP, Run
from .test_ingest_archives import pipe

__all__ = ["pipe", "registry", "tokens", "waited"]

UNIQUE = f"app:1-{APP.parsed.digest.hex[:10]}"


@pytest.fixture
def service(registry: Registry) -> Iterator[ProjectService]:
    server = ProjectService(registry)
    registry.users = {"AWS": server.token}
    with running(server):
        yield server


def of_service(service: ProjectService, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("API_TOKEN", SECRET)
    return ["--insecure", "--service", service.url, "--service-project", "p1", "--service-token-env", "API_TOKEN"]


@pytest.mark.conforms("H1", "H7", "H16")
def test_an_image_of_the_engine_is_pushed_under_a_unique_name(run: Run, registry: Registry, engine: FakeEngine) -> None:
    tags = {image_id: list(names) for image_id, names in engine.tags.items()}
    done = run("registry", "push", "--insecure", registry.host, "app:1")
    assert (done.code, done.out) == (0, f"{UNIQUE}\n"), done.err
    assert f"{registry.host}/{UNIQUE}: pushed, " in done.err
    assert ("app", UNIQUE.partition(":")[2]) in registry.manifests
    again = run("registry", "push", "--insecure", registry.host, "app:1")
    assert again.out == done.out
    assert "pushed, 0 bytes sent" in again.err
    assert engine.tags == tags
    assert set(engine.calls) == {"save"}


@pytest.mark.conforms("H3", "H7")
def test_quiet_prints_the_name_alone(run: Run, registry: Registry, engine: FakeEngine) -> None:
    done = run("registry", "push", "--insecure", registry.host, "app:1", "tools/mine:2", "--quiet")
    assert (done.code, done.out, done.err) == (0, "tools/mine:2\n", "")
    assert ("tools/mine", "2") in registry.manifests


def test_json(run: Run, registry: Registry, archive: Path) -> None:
    done = run("registry", "push", "--insecure", f"{registry.host}/team", f"docker-archive:{archive}", "--json")
    answer = json.loads(done.out)
    assert answer.pop("bytes_sent") > 0
    assert answer == {
        "name": UNIQUE,
        "reference": f"{registry.host}/team/{UNIQUE}",
        "image_id": str(APP.parsed.digest),
        "digest": next(name for repository, name in registry.manifests if name.startswith("sha256:")),
    }


def test_a_registry_is_a_source_too(run: Run, registry: Registry) -> None:
    registry.add("tools/app:1", APP)
    done = run("registry", "push", "--insecure", registry.host, f"docker://{registry.host}/tools/app:1")
    assert (done.code, done.out) == (0, f"tools/{UNIQUE}\n"), done.err


def test_of_two_registries_the_one_on_this_machine_does_without_tls(
    run: Run, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So an image is brought here from outside by one command."""
    asked: list[tuple[str, bool]] = []

    class Nowhere(Client):
        def __init__(self, host: str, *rest: object, insecure: bool = False, **more: object) -> None:
            asked.append((host, insecure))
            super().__init__(host, *rest, insecure=insecure, **more)  # type: ignore[arg-type]

        def manifest(self, *rest: object) -> Document:
            raise NoSuchImage("nothing is asked outside")

    monkeypatch.setattr(source, "Client", Nowhere)
    outside, here = "docker://registry.example/app:1", f"docker://{registry.host}/app:1"
    assert run("registry", "push", "--insecure", registry.host, outside).code == 1
    assert run("copy", "--insecure", outside, here).code == 1
    assert run("copy", "--insecure", here, outside).code == 1
    assert asked == [("registry.example", False)] * 2 + [(registry.host, True)]
    refused = run("copy", "--insecure", outside, "oci:nowhere")
    assert (refused.code, "registries on this machine" in refused.err) == (2, True), refused.err


@pytest.mark.conforms("H1")
def test_an_image_that_is_piped_in_is_pushed_under_a_unique_name(
    run: Run, registry: Registry, pipe: Callable[[bytes], None]
) -> None:
    """Though it says only at its end what it is."""
    pipe(classic(APP))
    done = run("registry", "push", "--insecure", registry.host, "docker-archive:-")
    assert (done.code, done.out) == (0, f"{UNIQUE}\n"), done.err
    pipe(classic(APP))
    named = run("registry", "push", "--insecure", registry.host, "docker-archive:-", "tools/mine:2")
    assert (named.code, named.out) == (0, "tools/mine:2\n"), named.err
    pipe(classic(APP)[:-30_000])
    assert run("registry", "push", "--insecure", registry.host, "docker-archive:-", "cut:1").code == 5
    assert not [name for repository, name in registry.manifests if repository == "cut"]


@pytest.mark.conforms("H1")
def test_an_image_of_an_engine_by_its_transport(
    run: Run, registry: Registry, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_daemon, "Docker", lambda **_: engine)
    done = run("registry", "push", "--insecure", registry.host, "docker-daemon:app:1")
    assert (done.code, done.out) == (0, f"{UNIQUE}\n"), done.err


@pytest.mark.conforms("H4")
def test_an_image_that_is_not_there_is_said_before_anything_is_asked(
    run: Run, registry: Registry, engine: FakeEngine, tmp_path: Path
) -> None:
    create = ["--create-command", f"touch {tmp_path}/created"]
    done = run("registry", "push", "--insecure", registry.host, "unknown:1", *create)
    assert (done.code, done.out) == (1, "")
    assert "unknown:1" in done.err
    assert registry.seen == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.conforms("H13")
def test_status(run: Run, registry: Registry, engine: FakeEngine) -> None:
    run("registry", "push", "--insecure", registry.host, "app:1", "app:1")
    found = run("registry", "status", "--insecure", registry.host, "app:1")
    assert (found.code, found.out, found.err) == (0, "ready\n", "")
    absent = run("registry", "status", "--insecure", registry.host, "app:2", "--json")
    assert (absent.code, json.loads(absent.out), absent.err) == (1, {"name": "app:2", "state": "absent"}, "")


@pytest.mark.conforms("H13", "H14")
def test_pending_and_waiting(
    run: Run, service: ProjectService, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = service.registry
    service.pending = 1
    done = run("registry", "push", registry.host, "app:1", "app:1", "--wait", *of_service(service, monkeypatch))
    assert (done.code, done.out) == (0, "app:1\n"), done.err
    service.pending = None
    pending = run("registry", "status", registry.host, "app:1", *of_service(service, monkeypatch))
    assert (pending.code, pending.out) == (10, "pending\n")
    began = time.monotonic()
    late = run("registry", "wait", registry.host, "app:1", "--timeout", "0.3", *of_service(service, monkeypatch))
    assert time.monotonic() - began >= 0.3
    assert (late.code, late.out) == (10, "")
    assert "app:1 is pending after 0.3 s" in late.err
    waiting = ("--wait", "--timeout", "0.1", *of_service(service, monkeypatch))
    named = run("registry", "push", registry.host, "app:1", "app:1", *waiting)
    assert (named.code, named.out) == (10, "app:1\n"), named.err  # it is there, and so is its name
    service.pending = 0
    ready = run("registry", "wait", registry.host, "app:1", *of_service(service, monkeypatch))
    assert (ready.code, ready.out) == (0, "ready\n")


@pytest.mark.conforms("H15")
def test_deleting(run: Run, registry: Registry, engine: FakeEngine) -> None:
    run("registry", "push", "--insecure", registry.host, "app:1", "app:1")
    registry.deletes = False
    refused = run("registry", "delete", "--insecure", registry.host, "app:1")
    assert (refused.code, refused.out) == (9, "")
    assert "unsupported" in refused.err
    assert "Traceback" not in refused.err
    registry.deletes = True
    assert run("registry", "delete", "--insecure", registry.host, "app:1").out == "deleted\n"
    again = run("registry", "delete", "--insecure", registry.host, "app:1")
    assert (again.code, again.out) == (1, "absent\n")


@pytest.mark.conforms("H15")
@pytest.mark.parametrize("status", [403, 404, 405])
def test_a_service_that_deletes_nothing(
    run: Run, service: ProjectService, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    host = service.registry.host
    run("registry", "push", host, "app:1", "app:1", *of_service(service, monkeypatch))
    service.deletes = status
    done = run("registry", "delete", host, "app:1", *of_service(service, monkeypatch))
    assert (done.code, done.out) == (9, "")
    assert "deleting app:1: unsupported" in done.err
    assert "Traceback" not in done.err


@pytest.mark.conforms("H12")
def test_lists(run: Run, registry: Registry) -> None:
    registry.page = 1
    for name in ("a", "b"):
        registry.put_manifest(name, "1", b"{}")
    assert run("registry", "images", "--insecure", registry.host).out == "a:1\nb:1\n"
    assert json.loads(run("registry", "repos", "--insecure", registry.host, "--json").out) == ["a", "b"]


def test_creating(run: Run, service: ProjectService, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("registry", "create", service.registry.host, "app", *of_service(service, monkeypatch))
    assert (done.code, done.out, service.repositories) == (0, "created\n", ["app"])
    plain = run("registry", "create", "--insecure", service.registry.host, "app", "--json")
    assert json.loads(plain.out) == {"repository": "app", "created": False}


def test_the_token(run: Run, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_SECRET", "it")
    done = run("registry", "token", registry.host, "--insecure", "--username", "ann", "--password-env", "THE_SECRET")
    assert (done.code, done.out, done.err) == (0, "it\n", "")
    none = run("registry", "token", registry.host, "--insecure")
    assert (none.code, none.out) == (9, "")


@pytest.mark.parametrize(
    "options",
    [
        ["--username", "ann"],
        ["--password-env", "A", "--password-command", "b"],
        ["--password-command", ""],
        ["--password-command", "a 'b"],
        ["--create-command", " "],
        ["--service-project", "p1"],
        ["--service", "https://service.example"],
        [
            "--service",
            "https://service.example",
            "--service-project",
            "p",
            "--service-token-env",
            "A",
            "--create-command",
            "x",
        ],
    ],
)
def test_options_that_do_not_go_together(run: Run, options: list[str]) -> None:
    done = run("registry", "images", "registry.example", *options)
    assert (done.code, done.out) == (2, ""), done.err


def test_secrets_of_commands_and_helpers(
    run: Run, registry: Registry, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.users = {"ann": "the password"}
    registry.put_manifest("a", "1", b"{}")
    helper = home / "programs" / "docker-credential-own"
    helper.parent.mkdir()
    helper.write_text(
        '#!/bin/sh\nread server; test "$server" = "$REGISTRY" || exit 1\n'
        'echo "{\\"Username\\":\\"ann\\",\\"Secret\\":\\"the password\\"}"\n'
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{helper.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("REGISTRY", registry.host)
    command = ["--username", "ann", "--password-command", "echo 'the password'"]
    for options in (command, ["--credential-helper", "own"]):
        done = run("registry", "images", "--insecure", f"http://{registry.host}/", *options)
        assert (done.code, done.out) == (0, "a:1\n"), done.err


@pytest.mark.parametrize("text", ["-1", "x", "nan", "1e9"])
def test_what_is_no_time(run: Run, text: str) -> None:
    done = run("registry", "wait", "registry.example", "app:1", f"--timeout={text}")
    assert done.code == 2
    assert "not a number of seconds" in done.err


@pytest.mark.conforms("H10", "H16")
def test_no_secret_shows_anywhere(
    run: Run, registry: Registry, tokens: TokenServer, engine: FakeEngine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in what is printed, not in the environment of child processes, in no file."""
    registry.bearer = tokens
    tokens.users = {"ann": "the password"}
    secrets = ["the password", "token-1", "YW5uOnRoZSBwYXNzd29yZA"]

    def fault(conversation: Conversation) -> bool:
        given = conversation.headers.get("Authorization", "")
        return bool(given) and conversation.command == "PUT" and conversation.answer(403, given.encode())

    monkeypatch.setenv("THE_SECRET", "the password")
    command = ["registry", "push", "--insecure", registry.host, "app:1", "app:1", "--username", "ann"]
    for registry.fault in (fault, lambda conversation: False):
        monkeypatch.setenv("THE_SECRET", "the password")
        done = run(*command, "--password-env", "THE_SECRET")
        assert not any(secret in done.out + done.err for secret in secrets), done.err
        assert "the password" not in os.environ.values()
    assert done.code == 0
    written = [path.read_bytes() for path in home.rglob("*") if path.is_file()]
    assert written
    assert not any(secret.encode() in content for secret in secrets for content in written)
    assert not (home / ".docker").exists()


def test_each_command_has_help_with_an_example(run: Run) -> None:
    for name in ("push", "images", "repos", "create", "status", "wait", "delete", "token"):
        done = run("registry", name, "--help")
        assert done.code == 0
        assert f"arv-docker registry {name}" in done.out.split("example", 1)[1]
    assert verb.__doc__


# -- a registry that misbehaves, as a source of Keep's images -----------------------------------


def wrong_bytes(conversation: Conversation, blob: bytes) -> bool:
    return conversation.answer(200, blob[:-1] + b"!")


def without_end(conversation: Conversation, blob: bytes) -> bool:
    conversation.start(200, None, Connection="close")
    for _ in range(200):
        conversation.write(bytes(1 << 20))
    return True


def wrong_range(conversation: Conversation, blob: bytes) -> bool:
    if not conversation.offset():
        return conversation.partly(blob, upto=len(blob) // 2)
    return conversation.answer(206, blob[:9], Content_Range=f"bytes 0-8/{len(blob)}")


def short(conversation: Conversation, blob: bytes) -> bool:
    return conversation.answer(200, blob[: len(blob) // 2])


def always_broken(conversation: Conversation, blob: bytes) -> bool:
    conversation.reset()
    return True


def elsewhere(conversation: Conversation, blob: bytes) -> bool:
    return conversation.answer(302, Location="ftp://other.example/blob")


def many_times(conversation: Conversation, blob: bytes) -> bool:
    return conversation.answer(302, Location=conversation.path)


def refused_in_the_middle(conversation: Conversation, blob: bytes) -> bool:
    if conversation.offset():
        return denied(conversation, blob)
    return conversation.partly(blob, upto=len(blob) // 2)


def busy_for_hours(conversation: Conversation, blob: bytes) -> bool:
    return conversation.refuse(429, "TOOMANYREQUESTS", Retry_After="36000")


def denied(conversation: Conversation, blob: bytes) -> bool:
    return conversation.refuse(401, "UNAUTHORIZED", WWW_Authenticate='Basic realm="x"')


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        (wrong_bytes, 5, "gives other bytes|holds other bytes|is damaged"),
        (without_end, 5, "gives more than|is no|holds other bytes|behind its|damaged"),
        (wrong_range, 9, "was asked for bytes from"),
        (short, 9, "the connection ended after"),
        (many_times, 9, "redirected more than 5 times"),
        (refused_in_the_middle, 9, "answers 401"),
        (always_broken, 9, "connection"),
        (elsewhere, 9, "is not followed"),
        (busy_for_hours, 9, "answers 429"),
        (denied, 9, "answers 401"),
    ],
)
def test_nothing_is_made_of_an_image_that_cannot_be_had(
    run: Run,
    registry: Registry,
    api: FakeApi,
    fault: Callable[[Conversation, bytes], bool],
    code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "Patience", partial(Patience, sleep=lambda seconds: None))
    registry.add("tools/app:1", APP)
    blob = max(registry.blobs.values(), key=len)
    registry.fault = lambda it: sha256(blob) in it.path and fault(it, blob)
    done = run("ingest", "--insecure", f"docker://{registry.host}/tools/app:1")
    assert (done.code, done.out) == (code, ""), done.err
    assert re.search(words, done.err), done.err
    assert "Traceback" not in done.err
    assert api.records["collections"] == api.records["links"] == {}
    registry.fault = lambda conversation: False
    assert run("ingest", "--insecure", f"docker://{registry.host}/tools/app:1").code == 0


@pytest.mark.parametrize("trusted", [True, False])
def test_what_comes_from_the_registry_is_said_and_why(
    run: Run, registry: Registry, api: FakeApi, trusted: bool
) -> None:
    """Of the next version the changed layer; all of it where only another user says that Keep has the others."""
    following = image(APP.layers[0], files_of(b"changed"), os="linux")
    for name, made in (("tools/app:1", APP), ("tools/app:2", following)):
        registry.add(name, made, lambda content: content)
    first = run("ingest", "--insecure", f"docker://{registry.host}/tools/app:1")
    assert f"{registry.host}: {size_text(sum(map(len, APP.layers)))} of layers fetched" in first.err
    for link in api.records["links"].values():
        if not trusted:
            link["modified_by_user_uuid"] = OTHER
    second = run("ingest", "--insecure", f"docker://{registry.host}/tools/app:2")
    assert (first.code, second.code) == (0, 0)
    fetched = following.layers[1:] if trusted else following.layers
    assert f"{registry.host}: {size_text(sum(map(len, fetched)))} of layers fetched" in second.err
    assert ("layers that only others say to be in Keep: 1;" in second.err) is not trusted
    again = run("ingest", "--insecure", f"docker://{registry.host}/tools/app:2")
    assert "fetched" not in again.err


@pytest.mark.parametrize("how", ["as it was", "altered", "by a stranger", "of another repository"])
def test_of_an_image_of_small_layers_only_what_changed_is_fetched(
    run: Run, registry: Registry, api: FakeApi, how: str
) -> None:
    """No link is about small layers: they are found in other images of the repository, read from Keep, and hashed."""
    layers = [hashlib.shake_128(b"%d" % number).digest(1 << 20) for number in range(4)]
    one, two = image(*layers[:3], os="linux"), image(*layers[:2], layers[3], os="linux")
    for name, made in (("tools/app:1", one), ("tools/app:2", two)):
        registry.add(name, made)
    source = f"docker://{registry.host}/tools/app"
    given = ["--as", f"{registry.host}/tools/app/other:1"] if how == "of another repository" else []
    assert run("ingest", "--insecure", f"{source}:1", *given).code == 0
    if how == "altered":
        for block, content in api.keep.blocks.items():
            api.keep.blocks[block] = content.replace(layers[0][:100], bytes(100))
    elif how == "by a stranger":
        for link in api.records["links"].values():
            link["modified_by_user_uuid"] = OTHER
    before = registry.sent("blobs")
    done = run("ingest", "--insecure", f"{source}:2")
    assert done.code == 0, done.err
    fetched = registry.sent("blobs") - before
    changed = {"as it was": 1, "altered": 2}.get(how, 3) * len(gzip.compress(layers[0]))
    assert changed <= fetched <= changed + (64 << 10)
    assert run("verify", f"{registry.host}/tools/app:2").code == 0
