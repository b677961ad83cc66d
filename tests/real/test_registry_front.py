# SPDX-License-Identifier: Apache-2.0
"""A registry as companies have it: behind nginx, TLS of an authority of its own, a token server, a proxy with a
password, and a credential helper. Every kind of source goes there and comes back, and no secret shows anywhere."""

import base64
import hashlib
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ..archives import classic, image
from ..registry.scripted import TokenConversation
from . import fronts
from .engines import Docker, Image, Podman, noise
from .fronts import PROXY_PASSWORD, PROXY_USER, Front
from .registries import PASSWORD, USER
from .sites import Done, Site, command, finished, started
from .test_registry_secrets import processes_of

#: An image with a layer that is larger than what nginx takes in one request.
LARGE = image(noise(5 << 20), b"second".ljust(2048), os="linux", architecture="amd64")


@pytest.fixture
def front(engine_scratch: Path, tmp_path: Path) -> Iterator[Front]:
    with fronts.front(tmp_path / "front") as found:
        yield found


@dataclass
class User:
    """A user who has the authority's certificate, a credential helper, and the proxy's password in the environment."""

    front: Front
    home: Path
    engine: dict[str, str]
    password: str = PROXY_PASSWORD
    seen: list[bytes] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        trusted = self.home / f".config/containers/certs.d/{self.front.host}"
        trusted.mkdir(parents=True, exist_ok=True)
        (trusted / "ca.crt").write_bytes(self.front.authority)
        secrets = self.home.parent / "secrets"
        secrets.mkdir(exist_ok=True)
        answer = json.dumps({"ServerURL": self.front.host, "Username": USER, "Secret": PASSWORD})
        helper = secrets / "docker-credential-front"
        helper.write_text(f"#!/bin/sh\nread host\necho \"$1 $host\" >>{secrets}/asked\necho '{answer}'\n")
        helper.chmod(0o700)
        (self.home / ".docker").mkdir(exist_ok=True)
        (self.home / ".docker/config.json").write_text(json.dumps({"credHelpers": {self.front.host: "front"}}))
        self.helper_log = secrets / "asked"

    @property
    def environment(self) -> dict[str, str]:
        proxy = f"http://{PROXY_USER}:{self.password}@{self.front.proxy}"
        return {
            **self.engine,
            "HOME": str(self.home),
            "DOCKER_CONFIG": f"{self.home}/.docker",
            "XDG_CACHE_HOME": f"{self.home}/cache",
            "XDG_CONFIG_HOME": f"{self.home}/.config",
            "PATH": f"{self.helper_log.parent}:{os.environ['PATH']}",
            "HTTPS_PROXY": proxy,
        }

    def run(self, *words: str | Path) -> Done:
        """Run a command with all that it has to say, and look at every argument list while it is at work."""
        process = started(command("--debug", *words), self.environment)

        def look(_: TokenConversation) -> bool:
            for pid in processes_of(process.pid):
                try:
                    self.seen.append(Path(f"/proc/{pid}/cmdline").read_bytes())
                except OSError:
                    continue
            return False

        self.front.tokens.fault = look
        done = finished(process)
        self.said += [done.out, done.err]
        return done

    def assert_no_secret(self) -> None:
        """Nothing that was said, written or given as an argument has a secret in it."""
        basics = [f"{USER}:{PASSWORD}", f"{PROXY_USER}:{PROXY_PASSWORD}"]
        secrets = [PASSWORD, PROXY_PASSWORD, *(base64.b64encode(it.encode()).decode() for it in basics)]
        secrets += list(self.front.tokens.issued)
        written = [it.read_bytes() for it in self.home.rglob("*") if it.is_file()]
        assert self.front.tokens.issued
        assert any(b"arv_docker" in it for it in self.seen), "commands were seen at work"
        for content in (*self.seen, *written, *(it.encode() for it in self.said)):
            assert [it for it in secrets if it.encode() in content] == []


@pytest.fixture
def user(front: Front, home: Path, docker: Docker) -> User:
    return User(front, home, docker.environment)


def id_in(archive: Path) -> str:
    """The ID of the one image in a docker-archive."""
    with tarfile.open(archive) as tar:
        listing = tar.extractfile("manifest.json")
        assert listing is not None
        config = tar.extractfile(json.load(listing)[0]["Config"])
        assert config is not None
        return f"sha256:{hashlib.sha256(config.read()).hexdigest()}"


@pytest.mark.engine("docker", "busybox", "podman", "registry", "nginx", "tinyproxy")
def test_every_source_goes_there_and_comes_back(
    user: User, front: Front, docker: Docker, podman: Podman, small_image: Image, tmp_path: Path
) -> None:
    saved, folder = tmp_path / "docker.tar", tmp_path / "folder"
    docker.run("save", "--output", saved, small_image.reference)
    podman.run("load", "--input", saved)
    site = Site(tmp_path / "site", docker)
    site.printed("ingest", small_image.reference)
    site.printed("copy", f"docker-archive:{saved}", f"folder:{folder}:app:1")
    for form in ("oci", "oci-archive"):
        site.printed("copy", f"docker-archive:{saved}", f"{form}:{tmp_path / form}:app")
    user.engine |= {key: it for key, it in podman.environment.items() if key.startswith("CONTAINERS_")}
    sources = {
        "docker": [small_image.reference],
        "podman": [f"localhost/{small_image.reference}", "--engine", "podman"],
        "archive": [f"docker-archive:{saved}"],
        "layout": [f"oci:{tmp_path / 'oci'}:app"],
        "layouts": [f"oci-archive:{tmp_path / 'oci-archive'}:app"],
        "folder": [f"folder:{folder}:app:1"],
        "keep": [f"keep:{small_image.reference}", f"--local={site.folder}"],
        "registry": [f"docker://{front.host}/team/from/archive:1"],
    }
    digests = set()
    for source, (first, *options) in sources.items():
        name = f"from/{source}:1"
        done = user.run("registry", "push", f"{front.host}/team", first, name, "--json", *options)
        assert done.status == 0, done.told
        digests.add(json.loads(done.out)["digest"])
        back = tmp_path / f"{source}.tar"
        done = user.run("copy", f"docker://{front.host}/team/{name}", f"docker-archive:{back}")
        assert done.status == 0, done.told
        assert id_in(back) == small_image.id
    assert len(digests) == 1
    done = user.run("registry", "images", f"{front.host}/team")
    assert (done.status, sorted(done.out.split())) == (0, sorted(f"from/{source}:1" for source in sources)), done.told
    done = user.run("registry", "tags", f"{front.host}/team", "from/keep")
    assert (done.status, done.out) == (0, "1\n"), done.told
    user.assert_no_secret()
    assert f"get {front.host}" in user.helper_log.read_text()
    assert f"CONNECT {front.host}" in front.passed()
    assert "/token?" in front.asked()


@pytest.mark.engine("docker", "registry", "nginx", "tinyproxy")
def test_a_layer_larger_than_nginx_takes_at_once(user: User, front: Front, tmp_path: Path) -> None:
    """In parts, through all of it, and back into Keep."""
    archive = tmp_path / "large.tar"
    archive.write_bytes(classic(LARGE))
    done = user.run("copy", f"docker-archive:{archive}", f"docker://{front.host}/team/large:1")
    assert done.status == 0, done.told
    assert '" 413 ' in front.asked()
    done = user.run("ingest", f"docker://{front.host}/team/large:1", f"--local={tmp_path / 'site'}")
    assert done.status == 0, done.told
    done = user.run("verify", f"{front.host}/team/large:1", f"--local={tmp_path / 'site'}")
    assert done.status == 0, done.told
    user.assert_no_secret()


@pytest.mark.engine("docker", "registry", "nginx", "tinyproxy")
def test_who_refuses_is_named(user: User, front: Front, tmp_path: Path) -> None:
    """The proxy where its password is wrong, the token server where the user's is."""
    archive = tmp_path / "app.tar"
    archive.write_bytes(classic(LARGE))
    words = ("copy", f"docker-archive:{archive}", f"docker://{front.host}/team/app:1")
    user.password = "another-proxy-pass"
    done = user.run(*words)
    assert done.status == 9, done.told
    assert "the proxy on the way to the registry answers 40" in done.err
    assert "another-proxy-pass" not in done.err
    user.password = PROXY_PASSWORD
    assert front.tokens.users is not None
    front.tokens.users = {USER: "changed"}
    done = user.run(*words)
    assert done.status == 9, done.told
    assert f"the token server ({fronts.TOKENS}:{front.host.partition(':')[2]}) answers 401" in done.err
    assert PASSWORD not in done.err
    assert PROXY_PASSWORD not in done.err
