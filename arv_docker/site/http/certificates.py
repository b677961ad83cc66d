# SPDX-License-Identifier: Apache-2.0
"""The site's own certificate authority and server certificate, made when HTTPS is first served.

They pass the strict X.509 checks that Python 3.13 turns on: basic constraints, key usage and
key identifiers as RFC 5280 wants them. The CA is constrained to loopback names, and the one that the site is
served under if that is another: its key, should it leak, vouches for nothing else.
"""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ...errors import BadSettings, DiskError
from ..folder import SiteFolder, hold_folder_lock
from ..store import clock
from ..store.files import write_private
from .addresses import running_addresses

CA_YEARS = 20
#: Some clients refuse server certificates that live longer than 825 days.
SERVER_DAYS = 800
#: A server certificate with less than this left is made anew.
RENEW_DAYS = 30


@dataclass(frozen=True, slots=True)
class Certificates:
    """The files that a server and its clients read."""

    server_key: Path
    server_chain: Path
    #: This machine's CA bundle and the site's CA: for SSL_CERT_FILE.
    bundle: Path


def certificates(folder: SiteFolder, host: str = "localhost") -> Certificates:
    """The site's certificates for loopback and ``host``, made or renewed where needed; raises DiskError, and
    BadSettings where a server that runs has others.

    Clients must fetch the bundle again where ``host`` is a new one: the CA is another then.
    """
    found = paths(folder)
    try:
        folder.tls.mkdir(mode=0o700, exist_ok=True)
        with hold_folder_lock(folder):
            authority = folder.tls / "ca.pem"
            if not authority.exists() or host not in _hosts(authority):
                _refuse_while_served(folder, host)
                _make_authority(folder, host)
                found.server_chain.unlink(missing_ok=True)
            if not _is_usable(found.server_chain):
                _make_server(folder, found, host)
            _write_bundle(found.bundle, authority)
    except OSError as error:
        raise DiskError(f"The certificates in {folder.tls} cannot be written.", detail=str(error)) from error
    return found


def _refuse_while_served(folder: SiteFolder, host: str) -> None:
    """Refuse another CA while a server of the folder runs: clients that read the new bundle would not trust it."""
    if others := running_addresses(folder):
        raise BadSettings(
            f"The site is served at {others[0]}: certificates for {host} would replace the ones that clients know. "
            f"Stop that server first, or serve it with --host {host} alone."
        )


def paths(folder: SiteFolder) -> Certificates:
    """The paths where the certificates lie, or will."""
    return Certificates(folder.tls / "server.key", folder.tls / "server.pem", folder.bundle)


def system_bundle() -> Path | None:
    """The CA bundle of this machine, or None."""
    known = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
    usual = ssl.get_default_verify_paths().openssl_cafile
    return next((Path(name) for name in (*known, usual) if Path(name).is_file()), None)


def _make_authority(folder: SiteFolder, host: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"arv-docker site {folder.root.name} CA")
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        _builder(name, name, key.public_key(), timedelta(days=365 * CA_YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .add_extension(_name_constraints(host), critical=True)
    )
    write_private(folder.tls / "ca.key", _pem_of_key(key))
    write_private(folder.tls / "ca.pem", builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def _make_server(folder: SiteFolder, paths: Certificates, host: str) -> None:
    authority = x509.load_pem_x509_certificate((folder.tls / "ca.pem").read_bytes())
    signing_key = serialization.load_pem_private_key((folder.tls / "ca.key").read_bytes(), password=None)
    assert isinstance(signing_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    parent = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        _builder(_name("localhost"), authority.subject, key.public_key(), timedelta(days=SERVER_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(parent), critical=False)
        .add_extension(x509.SubjectAlternativeName(_names(host)), critical=False)
    )
    write_private(paths.server_key, _pem_of_key(key))
    certificate = builder.sign(signing_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    write_private(paths.server_chain, certificate)


def _is_usable(chain: Path) -> bool:
    """Say if there is a server certificate that will last a while."""
    try:
        certificate = x509.load_pem_x509_certificate(chain.read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    return _end(certificate) - clock.current_time() > timedelta(days=RENEW_DAYS)


def _end(certificate: x509.Certificate) -> datetime:
    return certificate.not_valid_after_utc


def _write_bundle(bundle: Path, authority: Path) -> None:
    system = system_bundle()
    content = (system.read_bytes().rstrip() + b"\n" if system else b"") + authority.read_bytes()
    if not bundle.exists() or bundle.read_bytes() != content:
        write_private(bundle, content)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, lifetime: timedelta
) -> x509.CertificateBuilder:
    start = clock.current_time() - timedelta(hours=1)  # clocks differ a little
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + lifetime)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _names(host: str) -> list[x509.GeneralName]:
    """The names that a server certificate is for."""
    names = dict.fromkeys(["localhost", "127.0.0.1", "::1", host])
    return [
        x509.DNSName(name) if _address(name) is None else x509.IPAddress(ipaddress.ip_address(name)) for name in names
    ]


def _name_constraints(host: str) -> x509.NameConstraints:
    """The names that the CA may vouch for."""
    allowed: list[x509.GeneralName] = [x509.DNSName("localhost")]
    allowed += [x509.IPAddress(ipaddress.ip_network(network)) for network in ("127.0.0.0/8", "::1/128")]
    address = _address(host)
    allowed.append(x509.DNSName(host) if address is None else x509.IPAddress(ipaddress.ip_network(address)))
    return x509.NameConstraints(permitted_subtrees=list(dict.fromkeys(allowed)), excluded_subtrees=None)


def _hosts(authority: Path) -> set[str]:
    """The names and single addresses that the CA may vouch for."""
    certificate = x509.load_pem_x509_certificate(authority.read_bytes())
    allowed = certificate.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees or []
    return {"127.0.0.1", *(str(name.value).removesuffix("/32").removesuffix("/128") for name in allowed)}


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _pem_of_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
