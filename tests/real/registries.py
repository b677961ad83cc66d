# SPDX-License-Identifier: Apache-2.0
"""A real registry on loopback, Debian's `docker-registry` (distribution 2.8): open, with a password, with tokens."""

import base64
import contextlib
import datetime
import json
import os
import shutil
import socket
import socketserver
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

from ..registry.scripted import TokenServer, running
from . import engines

USER, PASSWORD = "ann", "the password"
#: bcrypt of PASSWORD, which the registry alone can check.
_HTPASSWD = f"{USER}:$2y$04$abcdefghijklmnopqrstuu/H.lJFjaSiZfTHhMpDr7TruFgBe68Eu\n"

KINDS = ("open", "password", "tokens")


class Distribution:
    """A running registry. Clients talk to `host`, where what they send is counted before it is passed on."""

    def __init__(self, folder: Path, kind: str, realm: str, certificate: Path | None, prefix: str = "/") -> None:
        """`kind` is one of KINDS, `realm` where its tokens are given, `prefix` the path below which it answers."""
        folder.mkdir()
        self.kind = kind
        self._folder = folder
        self.port = free_port()
        auth = ""
        if kind == "password":
            (folder / "htpasswd").write_text(_HTPASSWD)
            auth = f"auth:\n  htpasswd:\n    realm: scratch\n    path: {folder}/htpasswd\n"
        elif kind == "tokens":
            fields = f"realm: {realm}\n    service: scratch\n    issuer: scratch\n    rootcertbundle: {certificate}"
            auth = f"auth:\n  token:\n    {fields}\n"
        (folder / "config.yml").write_text(
            "version: 0.1\nlog:\n  level: warn\n"
            f"storage:\n  filesystem:\n    rootdirectory: {folder}/data\n  delete:\n    enabled: true\n"
            f"http:\n  addr: 127.0.0.1:{self.port}\n  prefix: {prefix}\n{auth}"
        )
        self._process = self._started()
        self._counter = _Counter(self.port)
        self.host = f"127.0.0.1:{self._counter.server_address[1]}"

    @property
    def received(self) -> int:
        """The bytes that clients sent so far, heads of requests and all."""
        return self._counter.received

    @property
    def served(self) -> int:
        """The bytes that clients got so far."""
        return self._counter.served

    def breaks(self, number: int, after: int) -> None:
        """The next `number` connections that carry more than `after` bytes break there."""
        self._counter.left, self._counter.after = number, after

    def close(self) -> None:
        """Ends it."""
        self._counter.shutdown()
        self._counter.server_close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _started(self) -> "subprocess.Popen[bytes]":
        bound = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
        environment = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
        with (self._folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [*bound, "docker-registry", "serve", f"{self._folder}/config.yml"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        deadline = time.monotonic() + 30
        while not listens(self.port):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                process.wait()
                tail = (self._folder / "log").read_text(errors="replace")[-2000:]
                engines.unavailable(f"registry: docker-registry did not start; end of its log:\n{tail}")
            time.sleep(0.02)
        return process


@contextlib.contextmanager
def registry(folder: Path, kind: str = "open") -> Iterator[Distribution]:
    """A registry of that kind, while the block lasts."""
    engines.require("registry")
    with contextlib.ExitStack() as stack:
        tokens = SignedTokens(folder.with_name(f"{folder.name}-tokens"))
        if kind == "tokens":
            stack.enter_context(running(tokens))
        else:
            tokens.server_close()
        server = Distribution(folder, kind, f"{tokens.url}/token", tokens.certificate)
        stack.callback(server.close)
        yield server


class SignedTokens(TokenServer):
    """Gives tokens that the registry takes: JSON Web Tokens, signed by a key whose certificate it knows (its
    documentation has them under spec/auth/jwt)."""

    def __init__(self, folder: Path, algorithm: str = "ES256") -> None:
        """`algorithm` signs them: ES256, or RS256, which is what most token servers use."""
        super().__init__(users={USER: PASSWORD})
        folder.mkdir()
        self._algorithm = algorithm
        self._key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = (
            ec.generate_private_key(ec.SECP256R1())
            if algorithm == "ES256"
            else rsa.generate_private_key(public_exponent=65537, key_size=2048)
        )
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tokens")])
        now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
        made = (
            x509.CertificateBuilder(name, name, self._key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate = folder / "it.pem"
        self.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        self._chain = base64.b64encode(made.public_bytes(serialization.Encoding.DER)).decode()

    def made(self, scopes: list[str]) -> str:
        now = int(time.time())
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":", 2)
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        head = {"typ": "JWT", "alg": self._algorithm, "x5c": [self._chain]}
        claims = {"iss": "scratch", "sub": USER, "aud": "scratch", "iat": now, "nbf": now - 10, "exp": now + 300}
        signed = ".".join(map(_base64, (json.dumps(head).encode(), json.dumps({**claims, "access": access}).encode())))
        return f"{signed}.{_base64(self._signature_of(signed.encode()))}"

    def _signature_of(self, content: bytes) -> bytes:
        if isinstance(self._key, rsa.RSAPrivateKey):
            return self._key.sign(content, padding.PKCS1v15(), hashes.SHA256())
        r, s = decode_dss_signature(self._key.sign(content, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


class _Counter(socketserver.ThreadingTCPServer):
    """Passes connections on and counts what clients send, and what they get."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.port = port
        self.received = 0
        self.served = 0
        self.left = self.after = 0
        self._lock = threading.Lock()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def count(self, number: int) -> None:
        with self._lock:
            self.received += number

    def breaks_now(self, carried: int) -> bool:
        """Whether a connection that has carried so many bytes is to break."""
        with self._lock:
            if not self.left or carried <= self.after:
                return False
            self.left -= 1
            return True

    def count_served(self, number: int) -> None:
        with self._lock:
            self.served += number


class _Passing(socketserver.BaseRequestHandler):
    server: _Counter

    def handle(self) -> None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.server.port)) as beyond:
            back = threading.Thread(
                target=self._copy, args=(beyond, self.request, self.server.count_served), daemon=True
            )
            back.start()
            self._copy(self.request, beyond, self.server.count)
            back.join()

    def _copy(self, source: socket.socket, target: socket.socket, count: Callable[[int], None]) -> None:
        carried = 0
        with contextlib.suppress(OSError):
            while content := source.recv(1 << 16):
                count(len(content))
                target.sendall(content)
                carried += len(content)
                if self.server.breaks_now(carried):
                    self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.request.shutdown(socket.SHUT_RD)
                    break
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
