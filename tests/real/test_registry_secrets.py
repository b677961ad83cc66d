# SPDX-License-Identifier: Apache-2.0
"""A token that expires in the middle of a push, and where its secrets are looked for: in every argument list and
environment of the command and its children at each request, in what is printed, and in every file."""

import base64
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..archives import classic, image
from ..registry.scripted import Conversation, Registry, TokenServer, running
from .engines import noise
from .sites import command, finished, started

PASSWORD = "a pass phrase of ann's"
CLUSTER = "v2/zzzzz-gj3su-000000000000000/the-cluster-s-secret"
IMAGE = image(noise(300_000), b"second".ljust(4096), b"third".ljust(2048), os="linux")


class Tokens(TokenServer):
    """Keeps every token that it ever gave, with what it is for."""

    def __init__(self) -> None:
        super().__init__(users={"ann": PASSWORD})
        self.made_so_far: dict[str, list[str]] = {}

    def made(self, scopes: list[str]) -> str:
        token = super().made(scopes)
        self.made_so_far[token] = scopes
        return token


@pytest.fixture
def registry() -> Iterator[Registry]:
    server, tokens = Registry(), Tokens()
    server.bearer = tokens
    with running(server, tokens):
        yield server


def script(file: Path, text: str) -> Path:
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o700)
    return file


def processes_of(pid: int) -> list[int]:
    """A process and all that came of it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):  # it has ended
                continue
    found = [pid]
    for known in found:
        found += [child for child, parent in parents.items() if parent == known]
    return found


def visible(pid: int) -> bytes:
    """What everybody, or this user's other programs, can see of a process and its children."""
    content = b""
    for it in processes_of(pid):
        for name in ("cmdline", "environ"):
            try:
                content += Path(f"/proc/{it}/{name}").read_bytes()
            except OSError:
                continue
    return content


@pytest.mark.conforms("H8", "H10")
@pytest.mark.parametrize("refused", [False, True])
def test_a_token_that_expires_in_the_middle_of_a_push(
    registry: Registry, tmp_path: Path, home: Path, refused: bool
) -> None:
    """Renewed once, and the push completes; refused again, the error names registry and step."""
    tokens = registry.bearer
    assert isinstance(tokens, Tokens)
    secrets, work = tmp_path / "secrets", tmp_path / "work"
    secrets.mkdir()
    work.mkdir()
    (work / "app.tar").write_bytes(classic(IMAGE))
    gives = script(secrets / "gives", f"tr '\\0' '\\n' </proc/$$/environ >>{work}/noted; echo \"{PASSWORD}\"")
    creates = script(work / "creates", f"cat /proc/$$/environ /proc/$PPID/cmdline /proc/$PPID/environ >>{work}/noted")
    seen: list[bytes] = []
    running_now: list[subprocess.Popen[str]] = []

    def fault(conversation: Conversation) -> bool:
        if conversation.command == "PATCH" and len(registry.received("PATCH")) == 2:
            tokens.issued.clear()
            if refused:
                tokens.uses = 0
        seen.append(visible(running_now[0].pid))
        return False

    registry.fault = fault
    line = command("registry", "push", "--insecure", registry.host, f"docker-archive:{work}/app.tar", "app:1")
    line += ["--username", "ann", "--password-command", str(gives), "--create-command", str(creates)]
    environment = os.environ | {"TMPDIR": str(work), "ARVADOS_API_TOKEN": CLUSTER}
    running_now.append(started(line, environment))
    done = finished(running_now[0])

    pushing = [token for token, scopes in tokens.made_so_far.items() if any("push" in scope for scope in scopes)]
    if refused:
        assert (done.status, done.out) == (9, ""), done.told
        step = r"(pushing|looking for) sha256:[0-9a-f]{64} (to|in) app"
        assert re.search(rf"{registry.host}: {step}: the registry answers 401", done.err), done.told
        assert ("app", "1") not in registry.manifests
    else:
        assert (done.status, done.out) == (0, "app:1\n"), done.told
        assert ("app", "1") in registry.manifests
        assert len(pushing) == 2
    assert len(pushing) >= 2

    basic = base64.b64encode(f"ann:{PASSWORD}".encode()).decode()
    hidden = [secret.encode() for secret in (PASSWORD, basic, *tokens.made_so_far)]
    written = {path: path.read_bytes() for folder in (home, work) for path in folder.rglob("*") if path.is_file()}
    noted = written[work / "noted"]
    assert str(work).encode() in b"".join(seen), "the command was seen at work"
    assert f"--create-command\0{creates}".encode() in noted
    for content in (*seen, *written.values(), done.out.encode(), done.err.encode()):
        assert not [secret for secret in hidden if secret in content]
    of_children = noted.split(b"--insecure")[0]
    assert b"TMPDIR=" in of_children
    assert CLUSTER.encode() not in of_children
