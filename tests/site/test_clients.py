# SPDX-License-Identifier: Apache-2.0
"""``arv-docker site`` as a user runs it, and the real command-line clients over HTTPS."""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import re
import shlex
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from arv_docker import site
from arv_docker.cli import site as command
from arv_docker.errors import BadSettings, NoCluster
from arv_docker.model import manifest_text
from arv_docker.site.folder import SiteFolder, open_site
from arv_docker.site.http.certificates import RENEW_DAYS, certificates, system_bundle
from arv_docker.site.status import client_settings
from arv_docker.site.store import clock
from arv_docker.site.store.database import SCHEMA_VERSION

#: The command alone, without the rest of the program.
PROGRAM = (
    "import argparse, sys; from arv_docker.cli import site; p = argparse.ArgumentParser(prog='arv-docker site'); "
    "site.configure(p); sys.exit(site.run(p.parse_args()))"
)


def arguments(*words: str) -> argparse.Namespace:
    """What the command line makes of these words."""
    parser = argparse.ArgumentParser(prog="arv-docker site")
    command.configure(parser)
    return parser.parse_args(words)


@dataclass(frozen=True)
class Served:
    """A site that ``site serve`` serves in a process of its own."""

    process: subprocess.Popen[str]
    folder: Path
    first_line: str

    def environment(self) -> dict[str, str]:
        """The environment after ``eval "$(arv-docker site env)"``."""
        printed = run("env", "--dir", str(self.folder)).stdout
        pairs = [shlex.split(line)[1].partition("=") for line in printed.splitlines() if line.startswith("export ")]
        return os.environ | {name: value for name, _, value in pairs}


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run([sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, timeout=60)


def start(folder: Path, *options: str) -> Served:
    """Serve a folder; returns once it is served."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "serve", "--dir", str(folder), *options], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr
    return Served(process, folder, process.stderr.readline())


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """An empty site, served over HTTPS."""
    found = start(tmp_path / "my site")
    yield found
    found.process.kill()
    found.process.wait()
    assert found.process.stderr
    found.process.stderr.close()


def client(name: str, *words: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A command of the real SDK."""
    program = Path(sys.executable).with_name(name)
    return subprocess.run([program, *words], capture_output=True, text=True, env=environment, timeout=120)


def test_real_clients_put_list_and_get(served: Served, tmp_path: Path) -> None:
    environment = served.environment()
    data = os.urandom(1 << 20) * 66  # two blocks
    (tmp_path / "data.bin").write_bytes(data)
    put = client("arv-put", "--no-progress", "--name", "n", str(tmp_path / "data.bin"), environment=environment)
    assert put.returncode == 0, put.stderr
    uuid = put.stdout.strip()
    listed = client("arv-ls", "-s", uuid, environment=environment)
    assert "data.bin" in listed.stdout, listed.stderr
    got = client("arv-get", f"{uuid}/data.bin", str(tmp_path / "back"), environment=environment)
    assert got.returncode == 0, got.stderr
    assert (tmp_path / "back").read_bytes() == data
    again = client("arv-put", "--no-progress", "--name", "n", str(tmp_path / "data.bin"), environment=environment)
    assert again.stdout.strip() not in ("", uuid), again.stderr
    status = json.loads(run("status", "--json", "--dir", str(served.folder)).stdout)
    assert (status["collections"], status["blocks"], status["bytes"]) == (2, 2, 66 << 20)


def test_arv_copy_brings_a_project_with_its_image_from_site_to_site(served: Served, tmp_path: Path, home: Path) -> None:
    other = start(tmp_path / "other")
    environment = served.environment()
    try:
        settings = home / ".config" / "arvados"
        settings.mkdir(parents=True)
        for name, site_environment in (("src", environment), ("dst", other.environment())):
            lines = [f"{key}={site_environment[key]}\n" for key in ("ARVADOS_API_HOST", "ARVADOS_API_TOKEN")]
            (settings / f"{name}.conf").write_text("".join(lines))
        both = tmp_path / "both.pem"
        both.write_bytes((served.folder / "ca-bundle.pem").read_bytes() + (other.folder / "tls/ca.pem").read_bytes())
        environment["SSL_CERT_FILE"] = str(both)
        project = json_of_api(served.folder, "POST", "groups", {"group": {"group_class": "project", "name": "p"}})
        (tmp_path / "file").write_bytes(b"hello")
        words = ("--no-progress", "--project-uuid", project["uuid"], str(tmp_path / "file"))
        uuid = client("arv-put", *words, environment=environment).stdout.strip()
        link = {"link_class": "docker_image_hash", "name": "sha256:abc", "head_uuid": uuid}
        json_of_api(served.folder, "POST", "links", link)
        # Its own client takes the destination from the environment, where it is set: then --dst has no say.
        del environment["ARVADOS_API_HOST"], environment["ARVADOS_API_TOKEN"]
        for what in (uuid, project["uuid"]):
            copied = client("arv-copy", "--src", "src", "--dst", "dst", what, environment=environment)
            assert copied.returncode == 0, copied.stderr
        stored = json_of_api(other.folder, "GET", "collections")["items"]
        assert {item["portable_data_hash"] for item in stored} == {hello_pdh(tmp_path / "file")}
        groups = {item["name"] for item in json_of_api(other.folder, "GET", "groups")["items"] if item["can_manage"]}
        assert groups == {"p"}
        links = json_of_api(other.folder, "GET", "links")["items"]
        assert {item["name"] for item in links} == {"sha256:abc"}
        assert {item["head_uuid"] for item in links} <= {item["uuid"] for item in stored}
    finally:
        other.process.kill()
        other.process.wait()
        assert other.process.stderr
        other.process.stderr.close()


def hello_pdh(path: Path) -> str:
    """The portable data hash of a collection that holds one small file."""
    data = path.read_bytes()
    return manifest_text.pdh(
        manifest_text.single_file(path.name, len(data), [f"{hashlib.md5(data).hexdigest()}+{len(data)}"])
    )


def json_of_api(folder: Path, method: str, path: str, body: object = None) -> Any:
    """The body of a 200 answer of a running site."""
    connection, headers = connected(folder)
    try:
        connection.request(method, f"/arvados/v1/{path}", json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        assert answer.status == 200
        return json.loads(answer.read())
    finally:
        connection.close()


def connected(folder: Path) -> tuple[http.client.HTTPSConnection, dict[str, str]]:
    """A connection to a running site, and the headers to send."""
    settings = client_settings(folder)
    host, _, port = settings.api_host.partition(":")
    context = ssl.create_default_context(cafile=str(settings.ca_bundle))
    connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=120)
    return connection, {"Authorization": f"Bearer {settings.api_token}", "Content-Type": "application/json"}


def test_real_clients_refuse_a_site_they_were_not_told_to_trust(served: Served) -> None:
    environment = served.environment()
    if system := system_bundle():
        environment["SSL_CERT_FILE"] = str(system)
    else:
        del environment["SSL_CERT_FILE"]
    refused = client("arv-ls", "--retries", "0", "d41d8cd98f00b204e9800998ecf8427e+0", environment=environment)
    assert refused.returncode != 0
    assert "certificate" in refused.stderr.lower()


def test_serve_says_where_and_how(served: Served) -> None:
    assert re.fullmatch(r"Serving .*my site at https://127\.0\.0\.1:\d+/ \(Ctrl-C stops it\)\.\n", served.first_line)
    assert served.process.stderr
    hint = served.process.stderr.readline()
    words = shlex.split(hint.partition("$(")[2].partition(")")[0])
    assert words == ["arv-docker", "site", "env", "--dir", str(served.folder)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_good_order(served: Served, number: signal.Signals) -> None:
    assert run("status", "--dir", str(served.folder)).stdout.count("https://") == 1
    served.process.send_signal(number)
    assert served.process.wait(10) == 0
    assert not (served.folder / "address").exists()
    assert "not running" in run("status", "--dir", str(served.folder)).stdout
    assert served.process.stderr
    assert "Traceback" not in served.process.stderr.read()


def test_env_of_a_killed_server_is_an_error_with_advice(served: Served) -> None:
    served.process.kill()
    served.process.wait()
    assert (served.folder / "address").exists()
    with pytest.raises(NoCluster, match="site serve"):
        command.run(arguments("env", "--dir", str(served.folder)))


def test_env_does_not_believe_another_site_on_that_port(served: Served, tmp_path: Path) -> None:
    other = open_site(tmp_path / "other")
    other.close()
    certificates(SiteFolder(tmp_path / "other"))
    (tmp_path / "other" / "address").write_bytes((served.folder / "address").read_bytes())
    with pytest.raises(NoCluster):
        command.run(arguments("env", "--dir", str(tmp_path / "other")))


def test_a_chosen_port_is_used_and_a_taken_one_refused(served: Served, tmp_path: Path) -> None:
    port = served.first_line.partition("127.0.0.1:")[2].partition("/")[0]
    taken = run("serve", "--dir", str(tmp_path / "second"), "--port", port)
    assert taken.returncode != 0
    assert port in taken.stderr
    served.process.terminate()
    served.process.wait(10)
    second = start(tmp_path / "second", "--port", port)
    assert f":{port}/" in second.first_line
    second.process.terminate()
    assert second.process.wait(10) == 0
    assert second.process.stderr
    second.process.stderr.close()


def test_another_host_is_served_with_a_certificate_of_its_own(tmp_path: Path) -> None:
    """Where the machine has another name or address than loopback, clients reach it there, and trust it."""
    folder = SiteFolder(tmp_path / "site")
    open_site(folder.root).close()
    first = certificates(folder).bundle.read_bytes()
    for host in ("site.example", "192.0.2.7", "2001:db8::7"):
        chain = certificates(folder, host).server_chain.read_bytes()
        assert certificates(folder, host).server_chain.read_bytes() == chain
        names = x509.load_pem_x509_certificate(chain).extensions.get_extension_for_class(x509.SubjectAlternativeName)
        assert {"localhost", "127.0.0.1", host} <= {str(name.value) for name in names.value}
    assert certificates(folder, "127.0.0.1").bundle.read_bytes() != first
    served = start(tmp_path / "site", "--host", "127.0.0.2")
    try:
        environment = served.environment()
        assert environment["ARVADOS_API_HOST"].startswith("127.0.0.2:")
        (tmp_path / "file").write_bytes(b"x")
        put = client("arv-put", "--no-progress", str(tmp_path / "file"), environment=environment)
        assert put.returncode == 0, put.stderr
    finally:
        served.process.kill()
        served.process.communicate()


def test_a_second_server_does_not_take_the_certificates_of_the_first(served: Served) -> None:
    """Under the same names two serve one folder; another name needs another CA, which the first one's clients lack."""
    bundle = (served.folder / "ca-bundle.pem").read_bytes()
    refused = run("serve", "--dir", str(served.folder), "--host", "127.0.0.2")
    assert refused.returncode == 1
    assert "Stop that server first" in refused.stderr
    assert (served.folder / "ca-bundle.pem").read_bytes() == bundle
    second = start(served.folder)
    try:
        assert json_of_api(served.folder, "GET", "links")["items"] == []
    finally:
        second.process.kill()
        second.process.communicate()
    served.process.kill()
    served.process.wait()
    other = start(served.folder, "--host", "127.0.0.2")
    assert "127.0.0.2" in other.first_line
    other.process.kill()
    other.process.communicate()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "no.such.host.invalid"])
def test_hosts_that_are_no_address_are_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(BadSettings):
        command.run(arguments("serve", "--host", host, "--dir", str(tmp_path / "site")))


def test_status_and_env_create_nothing(tmp_path: Path) -> None:
    for words in (["status"], ["env"], ["status", "--json"]):
        with pytest.raises(BadSettings, match="no site"):
            command.run(arguments(*words, "--dir", str(tmp_path / "none")))
    assert not (tmp_path / "none").exists()


def test_status_for_people_and_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with site.LocalSite(tmp_path / "site"):
        pass
    assert command.run(arguments("status", "--dir", str(tmp_path / "site"))) == 0
    assert f"schema version  {SCHEMA_VERSION}" in capsys.readouterr().out
    assert command.run(arguments("status", "--json", "--dir", str(tmp_path / "site"))) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["folder"] == str(tmp_path / "site")
    assert (found["schema_version"], found["blocks"], found["links"], found["address"]) == (SCHEMA_VERSION, 0, 0, None)
    assert found["free_bytes"] > 0


@pytest.mark.parametrize(
    "words",
    [
        [*words.split(), "--help"]
        for words in ("", "serve", "env", "status", "gc", "user", "user create", "user token", "user list")
    ],
)
def test_every_help_has_an_example(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        arguments(*words)
    assert ended.value.code == 0
    assert re.search(r"examples?:\n  (eval.*)?.*arv-docker site", capsys.readouterr().out)


@pytest.mark.parametrize(
    "words", ["", "serve --port 70000", "serve --port x", "bogus", "user", "user token ann --days 0"]
)
def test_bad_usage_is_exit_code_2(words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        arguments(*words.split())
    assert ended.value.code == 2


# -- certificates -----------------------------------------------------------------------


def test_certificates_pass_strict_verification(served: Served) -> None:
    context = ssl.create_default_context(cafile=str(served.folder / "ca-bundle.pem"))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    if hasattr(ssl, "VERIFY_X509_PARTIAL_CHAIN"):
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    port = int(served.first_line.partition("127.0.0.1:")[2].partition("/")[0])
    for host in ("127.0.0.1", "localhost"):
        connection = http.client.HTTPSConnection(host, port, context=context, timeout=10)
        connection.request("GET", "/arvados/v1/config")
        assert connection.getresponse().status == 200
        connection.close()


def test_the_bundle_keeps_the_machines_own_authorities(served: Served) -> None:
    bundle = (served.folder / "ca-bundle.pem").read_bytes()
    system = system_bundle()
    count = system.read_bytes().count(b"BEGIN CERTIFICATE") if system else 0
    assert bundle.count(b"BEGIN CERTIFICATE") == count + 1
    assert bundle.endswith((served.folder / "tls" / "ca.pem").read_bytes())


def test_certificates_stay_until_they_are_about_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_site(tmp_path / "site").close()
    folder = SiteFolder(tmp_path / "site")
    first = certificates(folder).server_chain.read_bytes()
    authority = (folder.tls / "ca.pem").read_bytes()
    assert certificates(folder).server_chain.read_bytes() == first
    ends = x509.load_pem_x509_certificate(first).not_valid_after_utc
    monkeypatch.setattr(clock, "current_time", lambda: ends - timedelta(days=RENEW_DAYS - 1))
    assert certificates(folder).server_chain.read_bytes() != first
    assert (folder.tls / "ca.pem").read_bytes() == authority
