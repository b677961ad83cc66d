# SPDX-License-Identifier: Apache-2.0
"""Where credentials come from, and when they are asked for again."""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from arv_docker.errors import BadSettings, RegistryDenied, UsageError
from arv_docker.registry import credentials
from arv_docker.registry.credentials import (
    Credentials,
    Logins,
    Wallet,
    command_provider,
    configured_provider,
    environment_provider,
    helper_provider,
    static_provider,
)

HOST = "registry.example:5000"


def auth(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


def write(path: Path, **document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def docker(home: Path, **document: Any) -> Path:
    return write(home / ".docker" / "config.json", **document)


def program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def programs(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder at the front of PATH."""
    monkeypatch.setenv("PATH", f"{home / 'programs'}:{os.environ['PATH']}")
    return home / "programs"


# -- the configuration of Docker and Podman ---------------------------------------------------


def test_nothing_is_configured() -> None:
    assert configured_provider(HOST, "", Logins.of_user(os.environ))() is None


@pytest.mark.parametrize(
    "key",
    [HOST, f"https://{HOST}", f"https://{HOST}/", f"https://{HOST}/v1/", f"https://{HOST}/v2/", f"http://{HOST}/v1"],
)
def test_dockers_auths(home: Path, key: str) -> None:
    docker(home, auths={key: auth("ann:pass:word"), "other.example": auth("bob:x")})
    assert configured_provider(HOST, "", Logins.of_user(os.environ))() == Credentials("ann", "pass:word")
    assert configured_provider("unknown.example", "", Logins.of_user(os.environ))() is None


@pytest.mark.parametrize(
    "key",
    [
        "https://index.docker.io/v1/",
        "docker.io",
        "index.docker.io",
        "https://index.docker.io/v2/",
        "https://registry-1.docker.io",
    ],
)
def test_docker_hub_has_keys_of_its_own(home: Path, key: str) -> None:
    docker(home, auths={key: auth("ann:word")})
    assert configured_provider("docker.io", "", Logins.of_user(os.environ))() == Credentials("ann", "word")


def test_the_first_file_that_knows_the_registry_wins(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker(home, auths={HOST: auth("docker:1"), "b.example": auth("docker:2")})
    write(home / ".config" / "containers" / "auth.json", auths={HOST: auth("user:1"), "c.example": auth("user:2")})
    write(home / ".run" / "containers" / "auth.json", auths={HOST: auth("session:1")})
    found = [configured_provider(host, "", Logins.of_user(os.environ))() for host in (HOST, "b.example", "c.example")]
    assert [it.username for it in found if it] == ["session", "docker", "user"]
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(write(home / "named", auths={HOST: auth("named:1")})))
    assert configured_provider(HOST, "", Logins.of_user(os.environ))() == Credentials("named", "1")
    assert configured_provider("b.example", "", Logins.of_user(os.environ))() is None


def test_podmans_file_for_who_has_no_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root has none: `sudo podman login`."""
    monkeypatch.setattr(credentials, "_SESSIONS", tmp_path)
    write(tmp_path / str(os.getuid()) / "auth.json", auths={HOST: auth("ann:word")})
    assert configured_provider(HOST, "", Logins.of_user(os.environ))() is None
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert configured_provider(HOST, "", Logins.of_user(os.environ))() == Credentials("ann", "word")


def test_podmans_keys_for_folders_of_a_registry(home: Path) -> None:
    write(
        home / ".config" / "containers" / "auth.json",
        auths={HOST: auth("all:1"), f"{HOST}/tools": auth("tools:1"), f"{HOST}/tools/bwa": auth("bwa:1")},
    )
    names = [
        configured_provider(HOST, repository, Logins.of_user(os.environ))()
        for repository in ("", "data/x", "tools/x", "tools/bwa")
    ]
    assert [it.username for it in names if it] == ["all", "all", "tools", "bwa"]


def test_tokens_in_a_configuration(home: Path) -> None:
    docker(home, auths={HOST: {**auth("ann:"), "identitytoken": "the identity"}, "b.example": {"registrytoken": "it"}})
    assert configured_provider(HOST, "", Logins.of_user(os.environ))() == Credentials("ann", "the identity", "identity")
    assert configured_provider("b.example", "", Logins.of_user(os.environ))() == Credentials("", "it", "bearer")


def test_a_helper_of_the_registry_and_a_store_of_all(home: Path, programs: Path) -> None:
    echo = 'read server; echo "{\\"Username\\":\\"$0\\",\\"Secret\\":\\"for $server\\"}" | sed "s,[^ \\"]*docker-,,"'
    program(programs, "docker-credential-one", echo)
    program(programs, "docker-credential-all", echo)
    docker(home, credHelpers={HOST: "one"}, credsStore="all", auths={"b.example": {}})
    assert configured_provider(HOST, "", Logins.of_user(os.environ))() == Credentials("credential-one", f"for {HOST}")
    assert configured_provider("b.example", "", Logins.of_user(os.environ))() == Credentials(
        "credential-all", "for b.example"
    )


def test_a_store_that_knows_nothing(home: Path, programs: Path) -> None:
    program(programs, "docker-credential-all", "echo credentials not found in native keychain; exit 1")
    docker(home, credsStore="all")
    assert configured_provider(HOST, "", Logins.of_user(os.environ))() is None


def test_a_helper_that_gives_nothing(programs: Path) -> None:
    program(programs, "docker-credential-x", """echo '{"ServerURL":"","Username":"","Secret":""}'""")
    assert helper_provider("x", HOST)() is None
    program(programs, "docker-credential-x", """echo '{"Username":"ann","Secret":""}'""")
    with pytest.raises(RegistryDenied, match="printed no secret"):
        helper_provider("x", HOST)()


@pytest.mark.parametrize("printed", ["garbage", "[]", '{"Secret": 1}', '{"Username": "ann"}', "{}", "\\377\\376"])
def test_a_helper_that_prints_garbage(programs: Path, printed: str) -> None:
    program(programs, "docker-credential-x", f"printf '{printed}'")
    with pytest.raises((RegistryDenied, BadSettings), match="docker-credential-x"):
        helper_provider("x", HOST)()


def test_a_store_whose_secret_is_a_token(programs: Path) -> None:
    program(programs, "docker-credential-x", """echo '{"Username":"<token>","Secret":"the identity"}'""")
    assert helper_provider("x", HOST)() == Credentials("", "the identity", "identity")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not a JSON object"),
        ("[]", "not a JSON object"),
        (json.dumps({"auths": {HOST: {"auth": "?"}}}), "not base64"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_a_warning(
    home: Path, content: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As for Docker: the registry may let everybody in."""
    credentials._WARNED.clear()
    docker(home).write_text(content)
    assert configured_provider(HOST, "", Logins.of_user(os.environ))() is None
    (warning,) = caplog.messages
    assert words in warning
    assert ".docker/config.json" in warning


# -- programs --------------------------------------------------------------------------------


def test_a_helper_that_is_missing_or_fails(programs: Path) -> None:
    with pytest.raises(RegistryDenied, match="docker-credential-nothing gave no credentials"):
        helper_provider("nothing", HOST)()
    program(programs, "docker-credential-bad", "echo a secret; echo its own words >&2; exit 3")
    with pytest.raises(RegistryDenied, match="ended with 3") as caught:
        helper_provider("bad", HOST)()
    assert caught.value.detail == "its own words"
    assert "a secret" not in str(caught.value)
    program(programs, "docker-credential-bad", "head -c 1000000 /dev/zero | tr '\\0' x >&2; echo the end >&2; exit 3")
    with pytest.raises(RegistryDenied, match="ended with 3") as caught:
        helper_provider("bad", HOST)()
    assert len(str(caught.value)) < 5000
    assert caught.value.detail.endswith("the end")


@pytest.mark.parametrize("name", ["../x", "a b", "a;b", ""])
def test_what_is_no_name_of_a_helper(name: str) -> None:
    with pytest.raises(BadSettings, match="not the name of a credential helper"):
        helper_provider(name, HOST)


def test_a_command_prints_a_secret_or_says_more() -> None:
    assert command_provider(["echo", "the secret"], "ann")() == Credentials("ann", "the secret")
    said = json.dumps({"token": "it", "username": "AWS", "expires_in": 1000})
    found = command_provider(["echo", said], "ann")()
    assert found == Credentials("AWS", "it")
    assert found is not None
    assert found.until is not None
    assert 900 < found.until - time.monotonic() < 950
    dated = command_provider(["echo", json.dumps({"token": "it", "expires": "2000-01-01T00:00:00Z"})], "ann")()
    assert dated is not None
    assert not dated.is_fresh


@pytest.mark.parametrize("printed", ["", "{}", '{"token": 1}', '{"token": ""}', "two\nlines"])
def test_a_command_that_prints_no_secret(printed: str) -> None:
    with pytest.raises(RegistryDenied, match="printed no secret"):
        command_provider(["printf", "%s", printed], "ann")()


def test_a_command_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "_TIMEOUT", 0.1)
    with pytest.raises(RegistryDenied, match=r"longer than 0\.1 s"):
        command_provider(["sleep", "10"], "ann")()


@pytest.mark.conforms("H11")
def test_a_command_is_no_shell(tmp_path: Path) -> None:
    assert command_provider(["echo", f"x; touch {tmp_path}/made"], "ann")() == Credentials(
        "ann", f"x; touch {tmp_path}/made"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_variable_is_read_once_and_no_child_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_TOKEN", "the secret")
    provider = environment_provider("THE_TOKEN", "ann")
    assert "THE_TOKEN" not in os.environ
    assert provider() == provider() == Credentials("ann", "the secret")
    with pytest.raises(BadSettings, match="THE_TOKEN"):
        environment_provider("THE_TOKEN", "ann")


def test_an_end_of_line_is_no_part_of_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """As secrets have it that Kubernetes makes of files."""
    monkeypatch.setenv("THE_TOKEN", "the secret\r\n")
    assert environment_provider("THE_TOKEN", "ann")() == Credentials("ann", "the secret")
    monkeypatch.setenv("THE_TOKEN", "\n")
    with pytest.raises(BadSettings, match="THE_TOKEN"):
        environment_provider("THE_TOKEN", "ann")


@pytest.mark.parametrize("text", ["a secret\n", "a\r\nHost: secret", "secr\u00e9t", "secret\x00"])
def test_a_token_that_no_request_can_hold(text: str) -> None:
    with pytest.raises(RegistryDenied, match="several lines") as caught:
        _ = Credentials("", text, "bearer").bearer
    assert "secr" not in str(caught.value)


@pytest.mark.parametrize("seconds", [10**400, float("inf"), 1e300], ids=["large", "inf", "float"])
def test_secrets_that_live_for_ever(seconds: float) -> None:
    assert time.monotonic() + 10**8 < credentials.good_until(seconds) < time.monotonic() + 10**10


def test_secrets_do_not_show_themselves() -> None:
    assert "the secret" not in repr(Credentials("ann", "the secret"))


# -- wallets ---------------------------------------------------------------------------------


class Provider:
    """Gives `secret 1`, `secret 2`, …, each good for so many seconds."""

    def __init__(self, lifetime: float | None) -> None:
        self.calls = 0
        self._lifetime = lifetime

    def __call__(self) -> Credentials:
        self.calls += 1
        until = None if self._lifetime is None else credentials.good_until(self._lifetime)
        return Credentials("ann", f"secret {self.calls}", "password", until)


@pytest.mark.conforms("H9")
def test_what_is_fresh_is_used_again() -> None:
    wallet = Wallet(provider := Provider(3600))
    assert [wallet.credentials(), wallet.credentials()] == [Credentials("ann", "secret 1")] * 2
    assert provider.calls == 1


@pytest.mark.conforms("H8")
def test_what_expires_soon_is_asked_for_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    wallet = Wallet(provider := Provider(3600))
    wallet.credentials()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 3600 - 61)
    wallet.credentials()
    assert provider.calls == 1
    monkeypatch.setattr(time, "monotonic", lambda: now + 3600 - 59)
    assert wallet.credentials() == Credentials("ann", "secret 2")
    assert provider.calls == 2


def test_what_was_refused_is_asked_for_anew_once() -> None:
    wallet = Wallet(provider := Provider(None))
    refused = wallet.credentials()
    assert wallet.renew(refused) == Credentials("ann", "secret 2")
    assert wallet.renew(refused) == Credentials("ann", "secret 2")  # another thread that was refused the same
    assert provider.calls == 2


@pytest.mark.conforms("H8")
def test_what_is_old_may_have_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    wallet = Wallet(provider := Provider(None))
    wallet.credentials()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 50)
    assert wallet.renew_if_old() is None
    monkeypatch.setattr(time, "monotonic", lambda: now + 70)
    assert wallet.renew_if_old() == Credentials("ann", "secret 2")
    assert wallet.renew_if_old() is None  # that one is young
    assert provider.calls == 2
    always = Wallet(static_provider("ann", "word"))
    assert always.renew_if_old() is None  # it has never been asked
    always.credentials()
    monkeypatch.setattr(time, "monotonic", lambda: now + 200)
    assert always.renew_if_old() is None  # it has no other


def test_who_has_nothing_else_says_so() -> None:
    wallet = Wallet(static_provider("ann", "word"))
    assert wallet.renew(wallet.credentials()) is None
    assert Wallet().credentials() is None


# -- credential stores and configurations as they are in the field -----------------------------


def encoded(text: str = "ann:word") -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (None, "No such file"),
        ('cat >/dev/null; echo "No stored credential for x"; exit 1', "ended with 1"),
        ('cat >/dev/null; echo "pass not initialized: exit status 1"; exit 1', "ended with 1"),
        ("echo not JSON", "not a JSON object"),
        ("""echo '{"Username": "ann"}'""", "printed no secret"),
        ("kill -9 $$", "ended with -9"),
    ],
)
def test_a_store_that_is_missing_or_broken_is_a_warning(
    home: Path, programs: Path, caplog: pytest.LogCaptureFixture, script: str | None, words: str
) -> None:
    credentials._WARNED.clear()
    docker(home).write_text(json.dumps({"auths": {}, "credsStore": "desktop"}))
    if script:
        program(programs, "docker-credential-desktop", script)
    for _ in range(2):
        assert configured_provider(HOST, "", Logins.of_user(os.environ))() is None
    (warning,) = caplog.messages
    assert words in warning
    assert "docker-credential-desktop" in warning


def test_a_file_that_cannot_be_read_leaves_the_next_one(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    credentials._WARNED.clear()
    ours = home / ".config" / "containers"
    ours.mkdir(parents=True)
    (ours / "auth.json").write_text("{")
    docker(home).write_text(json.dumps({"auths": {HOST: {"auth": encoded()}}}))
    assert configured_provider(HOST, "", Logins.of_user(os.environ))() == Credentials("ann", "word")
    assert "auth.json is not a JSON object" in caplog.text


@pytest.mark.parametrize("text", [f"{encoded()}\n", f"{encoded()[:4]}\n{encoded()[4:]}\r\n", f" {encoded()} "])
def test_base64_that_is_wrapped(home: Path, text: str) -> None:
    docker(home).write_text(json.dumps({"auths": {HOST: {"auth": text}}}))
    assert configured_provider(HOST, "", Logins.of_user(os.environ))() == Credentials("ann", "word")


@pytest.mark.parametrize(
    "key", [f"https://{HOST}/v2/team/app", f"http://{HOST}", f"https://{HOST}/any/path/", f"{HOST}/some/repository"]
)
def test_keys_of_any_depth(home: Path, key: str) -> None:
    docker(home).write_text(
        json.dumps({"auths": {key: {"auth": encoded()}, "other.example": {"auth": encoded("bob:x")}}})
    )
    assert configured_provider(HOST, "team/app", Logins.of_user(os.environ))() == Credentials("ann", "word")
    assert configured_provider("unknown.example", "", Logins.of_user(os.environ))() is None


def test_the_key_that_fits_best_goes_first(home: Path) -> None:
    keys = {f"https://{HOST}/v2/": "third:x", HOST: "second:x", f"{HOST}/team": "first:x"}
    docker(home).write_text(json.dumps({"auths": {key: {"auth": encoded(text)} for key, text in keys.items()}}))
    found = [configured_provider(HOST, name, Logins.of_user(os.environ))() for name in ("team/app", "other/app")]
    assert found == [Credentials("first", "x"), Credentials("second", "x")]


def test_logins_in_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker(home).write_text(json.dumps({"auths": {HOST: {"auth": encoded("file:x")}}}))
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", json.dumps({"auths": {HOST: {"auth": encoded()}}}))
    assert configured_provider(HOST, "", Logins.of_user(os.environ))() == Credentials("ann", "word")
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", json.dumps({"auths": {"other.example": {"auth": encoded()}}}))
    assert configured_provider(HOST, "", Logins.of_user(os.environ))() == Credentials("file", "x")


def test_logins_of_a_file_alone(home: Path, tmp_path: Path) -> None:
    docker(home).write_text(json.dumps({"auths": {HOST: {"auth": encoded("file:x")}}}))
    given = tmp_path / "given.json"
    given.write_text(json.dumps({"auths": {"other.example": {"auth": encoded()}}}))
    logins = credentials.Logins.of_file(given)
    assert configured_provider(HOST, "", logins)() is None
    assert configured_provider("other.example", "", logins)() == Credentials("ann", "word")
    with pytest.raises(UsageError, match="is not there"):
        credentials.Logins.of_file(tmp_path / "none.json")
