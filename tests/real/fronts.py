# SPDX-License-Identifier: Apache-2.0
"""What stands before a registry where people work: nginx with TLS, a prefix and a limit of bodies, a token server
behind the same nginx, and a proxy with a password, by which alone all of it is reached.

The names exist nowhere but in the proxy's own table of hosts, and the certificates are of a test's authority.
"""

import contextlib
import datetime
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ..registry.scripted import running
from . import engines
from .registries import Distribution, SignedTokens, free_port, listens

REGISTRY, TOKENS = "registry.test", "auth.test"
PROXY_USER, PROXY_PASSWORD = "paul", "proxy-pass.phrase_7"
#: What one request may carry: less than a layer has.
MOST = 2 << 20

_NGINX = """\
daemon off;
user root;
pid {folder}/pid;
error_log {folder}/error.log;
worker_processes 1;
events {{}}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    ssl_certificate {folder}/server.pem;
    ssl_certificate_key {folder}/server.key;
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-Proto https;
    server {{
        listen 127.0.0.1:{port} ssl;
        server_name {registry};
        client_max_body_size {most};
        location /v2/ {{ proxy_pass http://127.0.0.1:{inner}/behind/v2/; }}
        location /behind/ {{ proxy_pass http://127.0.0.1:{inner}; }}
    }}
    server {{
        listen 127.0.0.1:{port} ssl;
        server_name {tokens};
        location /token {{ proxy_pass {token_url}; }}
    }}
}}
"""

_TINYPROXY = """\
Listen 127.0.0.1
Port {port}
Timeout 60
MaxClients 50
LogFile "{folder}/proxy.log"
LogLevel Connect
BasicAuth {user} {password}
"""


@dataclass
class Front:
    """A registry as it is reached: `host` by its name, through `proxy`, whose address has no password yet."""

    host: str
    authority: bytes
    proxy: str
    tokens: SignedTokens
    folder: Path

    def asked(self) -> str:
        """The requests that nginx answered, a line each."""
        return (self.folder / "access.log").read_text()

    def passed(self) -> str:
        """The connections that the proxy made, or refused."""
        return (self.folder / "proxy.log").read_text()


@contextlib.contextmanager
def front(folder: Path) -> Iterator[Front]:
    """All of it, while the block lasts."""
    engines.require("registry", "nginx", "tinyproxy")
    folder.mkdir()
    port, proxy_port = free_port(), free_port()
    authority = _certificates(folder, [REGISTRY, TOKENS])
    with contextlib.ExitStack() as stack:
        tokens = SignedTokens(folder / "tokens", "RS256")
        stack.enter_context(running(tokens))
        realm = f"https://{TOKENS}:{port}/token"
        inner = Distribution(folder / "registry", "tokens", realm, tokens.certificate, prefix="/behind/")
        stack.callback(inner.close)
        places = {"folder": folder, "port": port, "inner": inner.port, "token_url": tokens.url}
        (folder / "nginx.conf").write_text(_NGINX.format(registry=REGISTRY, tokens=TOKENS, most=MOST, **places))
        stack.enter_context(_daemon(["nginx", "-e", f"{folder}/start.log", "-c", f"{folder}/nginx.conf"], folder, port))
        (folder / "tinyproxy.conf").write_text(
            _TINYPROXY.format(port=proxy_port, folder=folder, user=PROXY_USER, password=PROXY_PASSWORD)
        )
        (folder / "hosts").write_text(f"127.0.0.1 localhost {REGISTRY} {TOKENS}\n")
        script = 'mount --bind "$1" /etc/hosts && shift && exec "$@"'
        apart = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", f"{folder}/hosts"]
        stack.enter_context(_daemon([*apart, "tinyproxy", "-d", "-c", f"{folder}/tinyproxy.conf"], folder, proxy_port))
        yield Front(f"{REGISTRY}:{port}", authority, f"127.0.0.1:{proxy_port}", tokens, folder)


@contextlib.contextmanager
def _daemon(line: Sequence[str], folder: Path, port: int) -> Iterator[None]:
    """A program that listens at a port, while the block lasts."""
    bound = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
    log = folder / f"{port}.log"
    with log.open("wb") as said:
        process = subprocess.Popen([*bound, *line], stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 30
        while not listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                engines.unavailable(f"{line[0]} did not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _certificates(folder: Path, names: Sequence[str]) -> bytes:
    """Write a server's certificate and key there; gives the certificate of the authority that signed it."""
    now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
    keys = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority for tests")])
    server = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])

    def certificate(subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, ca: bool) -> x509.Certificate:
        made = (
            x509.CertificateBuilder(authority, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        )
        return made.sign(keys[0], hashes.SHA256())

    own, of_server = certificate(authority, keys[0], ca=True), certificate(server, keys[1], ca=False)
    (folder / "server.pem").write_bytes(of_server.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "server.key").write_bytes(keys[1].private_bytes(*form))
    return own.public_bytes(serialization.Encoding.PEM)
