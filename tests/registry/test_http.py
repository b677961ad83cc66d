# SPDX-License-Identifier: Apache-2.0
"""Connections to a registry: which certificates are believed, which redirects followed, what is shown of an error."""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from arv_docker.errors import BadSettings, RegistryError
from arv_docker.model.image import Digest
from arv_docker.registry import certificates
from arv_docker.registry.access import Access
from arv_docker.registry.authorization import Challenge, parse_challenge
from arv_docker.registry.client import Client
from arv_docker.registry.credentials import static_provider
from arv_docker.registry.http import Http, is_local, origin_of
from arv_docker.registry.upload import Blob

from .scripted import Conversation, Registry, TokenServer, Waited, running, with_tls


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a registry")])
    start = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=1)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file, secret = folder / "it.pem", folder / "it.key"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    secret.write_bytes(key.private_bytes(*form))
    return file, secret


@pytest.fixture
def safe(tmp_path: Path) -> Iterator[tuple[Registry, Path]]:
    """A registry that speaks TLS, and its certificate."""
    file, key = certificate(tmp_path)
    server = Registry()
    with_tls(server, str(file), str(key))
    with running(server):
        yield server, file


def trusted(home: Path, registry: Registry, file: Path) -> Path:
    folder = home / ".config" / "containers" / "certs.d" / registry.host
    folder.mkdir(parents=True)
    (folder / "own.crt").write_bytes(file.read_bytes())
    return folder


def test_a_registry_with_an_authority_of_its_own(safe: tuple[Registry, Path], home: Path, waited: Waited) -> None:
    registry, file = safe
    registry.put_manifest("app", "1", b"{}")
    client = Client(registry.host, patience=waited.patience, access=Access.of_user())
    with pytest.raises(RegistryError, match="no safe connection") as caught:
        client.manifest("app", "1")
    assert f"certs.d/{registry.host}" in str(caught.value)
    assert waited.seconds == []
    trusted(home, registry, file)
    assert Client(registry.host, access=Access.of_user()).manifest("app", "1").raw == b"{}"


def cut(conversation: Conversation) -> bool:
    """End the connection without a word of TLS's."""
    conversation.close_connection = True
    socket.socket.shutdown(conversation.connection, socket.SHUT_RDWR)
    return True


def test_tls_that_is_cut_off_is_a_broken_connection(safe: tuple[Registry, Path], home: Path, waited: Waited) -> None:
    """Nothing is wrong with its safety: it is tried again, as without TLS."""
    registry, file = safe
    trusted(home, registry, file)
    registry.put_manifest("app", "1", b"{}")
    left = iter(range(2))
    registry.fault = lambda it: next(left, None) is not None and cut(it)
    assert Client(registry.host, patience=waited.patience, access=Access.of_user()).manifest("app", "1").raw == b"{}"
    registry.fault = cut
    with pytest.raises(RegistryError, match=r"the connection failed\. Is the registry there?") as caught:
        Client(registry.host, patience=waited.patience, access=Access.of_user()).manifest("app", "1")
    assert "certs.d" not in str(caught.value)


def test_an_answer_that_comes_before_the_body_was_read(tmp_path: Path, home: Path, waited: Waited) -> None:
    """As nginx refuses a body that is too large, and closes: the answer counts, through TLS as without."""

    class Refusing(Conversation):
        def _body(self) -> bytes:
            if int(self.headers.get("Content-Length") or 0) <= 2 << 20:
                return super()._body()
            self.refuse(413, "TOO_LARGE", Connection="close")
            self.connection.settimeout(0.5)  # lingers, as nginx does
            with suppress(OSError):
                for _ in range(20):
                    self.connection.recv(1 << 16)
            cut(self)
            raise ConnectionAbortedError

    file, key = certificate(tmp_path)
    server = Registry()
    server.RequestHandlerClass = Refusing
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    with_tls(server, str(file), str(key))
    trusted(home, server, file)
    content = hashlib.shake_128(b"large").digest(8 << 20)
    with running(server):
        Client(server.host, patience=waited.patience, access=Access.of_user()).push("app", Blob.of(content, "x"))
    assert server.blobs[str(Digest.of(content))] == content
    assert waited.seconds == []  # nothing failed: it was told to send less


def test_a_token_server_that_the_registrys_authority_vouches_for(
    safe: tuple[Registry, Path], tmp_path: Path, home: Path, tokens: TokenServer
) -> None:
    """As GitLab has it: the registry on a port of its own, tokens on another."""
    registry, file = safe
    with_tls(tokens, str(file), str(tmp_path / "it.key"))
    tokens.url = tokens.url.replace("http:", "https:")
    registry.bearer = tokens
    registry.put_manifest("app", "1", b"{}")
    with pytest.raises(RegistryError, match="no safe connection"):
        Client(registry.host, access=Access.of_user()).manifest("app", "1")
    trusted(home, registry, file)
    assert Client(registry.host, access=Access.of_user()).manifest("app", "1").raw == b"{}"


def test_certificates_of_the_host_that_a_registry_sends_to(
    safe: tuple[Registry, Path], tmp_path: Path, home: Path, tokens: TokenServer
) -> None:
    """They count too; and the client's own certificate is not shown there."""
    registry, file = safe
    folder = trusted(home, registry, file)
    (folder / "me.cert").write_bytes(file.read_bytes())
    (folder / "me.key").write_bytes((tmp_path / "it.key").read_bytes())
    elsewhere = folder.with_name("auth.example")
    elsewhere.mkdir()
    (elsewhere / "own.crt").write_text("none")
    certificates.context_for("storage.example", registry.host, certificates.user_folders())
    with pytest.raises(BadSettings, match=r"auth\.example/own\.crt cannot be used"):
        certificates.context_for("auth.example", registry.host, certificates.user_folders())
    (folder / "me.cert").write_text("none")
    certificates.context_for("storage.example", registry.host, certificates.user_folders())
    with pytest.raises(BadSettings, match=r"me\.cert cannot be used"):
        certificates.context_for(registry.host, registry.host, certificates.user_folders())


def test_an_authority_in_the_environment(safe: tuple[Registry, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    registry, file = safe
    registry.put_manifest("app", "1", b"{}")
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    assert Client(registry.host, access=Access.of_user()).manifest("app", "1").raw == b"{}"


@pytest.mark.parametrize("name", ["own.crt", "me.cert"])
def test_a_certificate_that_is_none(safe: tuple[Registry, Path], home: Path, name: str) -> None:
    registry, file = safe
    (trusted(home, registry, file) / name).write_text("none")
    with pytest.raises(BadSettings, match=f"{name} cannot be used as a certificate"):
        Client(registry.host, access=Access.of_user()).manifest("app", "1")


def test_a_redirect_from_tls_to_none(safe: tuple[Registry, Path], home: Path, registry: Registry) -> None:
    secure, file = safe
    trusted(home, secure, file)
    secure.fault = lambda conversation: conversation.answer(302, Location=f"http://{registry.host}/x?sig=secret")
    with pytest.raises(RegistryError, match="a redirect from https to http is not followed") as caught:
        Client(secure.host, access=Access.of_user()).manifest("app", "1")
    assert "sig" not in str(caught.value)
    assert registry.seen == []


def test_a_registry_elsewhere_does_not_lead_to_this_machine() -> None:
    http = Http("registry.example")
    for address in ("https://127.0.0.1/x", "https://localhost./x", "https://[::1]/", "https://169.254.169.254/latest"):
        with pytest.raises(RegistryError, match="a redirect to this machine"):
            http.check_redirect("https://registry.example/v2/", address, "reading")
    http.check_redirect("https://registry.example/v2/", "https://storage.example/x", "reading")


@pytest.mark.parametrize(
    ("realm", "safe"),
    [
        ("http://127.0.0.1:9/token", False),
        ("https://127.0.0.1:9/token", False),
        ("http://auth.example/token", False),
        ("ftp://auth.example/token", False),
        ("https://auth.example/token", True),
    ],
)
def test_where_a_registry_elsewhere_may_send_for_tokens(realm: str, safe: bool) -> None:
    client = Client("registry.example", static_provider("ann", "word"), access=Access.of_user())
    if safe:
        client._authorization._check_realm(realm)
        return
    with pytest.raises(RegistryError, match="not safe"):
        client._authorization._check_realm(realm)


@pytest.mark.parametrize(
    "name",
    ["localhost", "LOCALHOST.", "x.localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]", "0.0.0.0", "::ffff:127.0.0.1"],
)
def test_names_of_this_machine(name: str) -> None:
    assert is_local(name)


@pytest.mark.parametrize("name", ["registry.example", "localhost.example", "10.0.0.1", "128.0.0.1", ""])
def test_names_of_others(name: str) -> None:
    assert not is_local(name)


@pytest.mark.parametrize(
    "url", ["https://registry.example/v2/", "https://registry.example:443/x", "https://REGISTRY.example:0443"]
)
def test_one_origin_however_it_is_written(url: str) -> None:
    """Whoever writes the port 443 is answered without it: that is where an upload goes on, with its authorization."""
    assert origin_of(url) == origin_of("https://registry.example:443")


def test_other_origins() -> None:
    others = ("http://registry.example", "https://registry.example:444", "https://other.example", "https://[::1]:443")
    assert len({origin_of(url) for url in ("https://registry.example", *others)}) == 5


@pytest.mark.parametrize("address", ["https://[bad/x", "https://a:b/x", "http://[::1/token"])
def test_addresses_that_are_none(registry: Registry, address: str) -> None:
    registry.fault = lambda conversation: conversation.answer(307, Location=address)
    with pytest.raises(RegistryError, match="an address that is none"):
        Client(registry.host, insecure=True, access=Access.of_user()).manifest("app", "1")
    registry.fault = lambda it: it.answer(401, WWW_Authenticate=f'Bearer realm="{address}"')
    with pytest.raises(RegistryError, match="an address that is none"):
        Client(registry.host, insecure=True, access=Access.of_user()).manifest("app", "1")
    registry.fault = lambda it: it.answer(202 if it.command == "POST" else 404, Location=address)
    with pytest.raises(RegistryError, match="an address that is none"):
        Client(registry.host, insecure=True, access=Access.of_user()).push("app", Blob.of(b"x", ""))


def test_secrets_that_a_registry_repeats_are_not_shown(registry: Registry) -> None:
    def fault(conversation: Conversation) -> bool:
        if given := conversation.headers.get("Authorization"):
            return conversation.answer(403, f"you said {given} and the password".encode())
        return conversation.refuse(401, "UNAUTHORIZED", WWW_Authenticate="Basic")

    registry.fault = fault
    client = Client(registry.host, static_provider("ann", "the password"), insecure=True, access=Access.of_user())
    with pytest.raises(RegistryError, match="answers 403 Forbidden") as caught:
        client.manifest("app", "1")
    assert caught.value.detail == "you said Basic *** and ***"


def test_requests_go_through_the_proxy(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked to connect, and refuses."""
    monkeypatch.setenv("https_proxy", f"http://{registry.host}")
    with pytest.raises(RegistryError, match="the proxy on the way to the registry answers 501") as caught:
        Client("registry.example", patience=Waited().patience, access=Access.of_user()).manifest("app", "1")
    assert "501" in caught.value.detail  # its answer to CONNECT


def test_a_proxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch, waited: Waited) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        place = f"127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setenv("HTTPS_PROXY", f"http://ann:Secret7@{place}")
    with pytest.raises(RegistryError, match="the proxy on the way to the registry cannot be reached") as caught:
        Client("registry.example", patience=waited.patience, access=Access.of_user()).manifest("app", "1")
    assert "Secret7" not in str(caught.value)
    assert len(waited.seconds) == 5


def test_a_proxy_that_wants_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets that of its address, which shows in no message."""
    heads: list[bytes] = []

    class Proxy(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            heads.append(b"".join(iter(self.rfile.readline, b"\r\n")))
            self.wfile.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        monkeypatch.setenv("https_proxy", f"http://ann:the%20password@127.0.0.1:{server.server_address[1]}")
        with pytest.raises(RegistryError, match="the proxy on the way to the registry answers 407") as caught:
            Client("registry.example", patience=Waited().patience, access=Access.of_user()).manifest("app", "1")
        server.shutdown()
    basic = base64.b64encode(b"ann:the password")
    assert b"authorization: Basic " + basic in heads[0]
    assert "407" in caught.value.detail
    assert not any(secret in str(caught.value) for secret in ("the password", "the%20password", basic.decode()))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", None),
        ("Negotiate", None),
        ("Basic", Challenge("basic")),
        ('basic realm="x"', Challenge("basic")),
        ('Bearer realm="https://a/t"', Challenge("bearer", "https://a/t")),
        (
            'Bearer service="s",realm="https://a/t",scope="repository:a:pull,push repository:b:pull"',
            Challenge("bearer", "https://a/t", "s", ("repository:a:pull,push", "repository:b:pull")),
        ),
        ('Basic realm="x", Bearer realm="https://a/t",service=s', Challenge("bearer", "https://a/t", "s")),
        ('Bearer realm=""', None),
        ('Bearer realm="", Basic realm="y"', Challenge("basic")),
    ],
)
def test_what_a_registry_wants(header: str, expected: Challenge | None) -> None:
    assert parse_challenge(header) == expected
