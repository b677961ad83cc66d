# SPDX-License-Identifier: Apache-2.0
"""The settings: where they are looked for, what wins, and what is refused with its place."""

from __future__ import annotations

import pwd
from pathlib import Path

import pytest

from arv_docker.arvados.client import Cluster
from arv_docker.errors import BadSettings
from arv_docker.local.settings import Settings, settings
from arv_docker.site import default_folder
from arv_docker.store.tarballs import cache_folder

ONE, TWO = "zzzzz-tpzed-000000000000001", "zzzzz-tpzed-000000000000002"


def write(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "arv-docker.conf"
    path.write_text(text)
    return path


@pytest.fixture(autouse=True)
def no_system_settings(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(home / "etc"))
    monkeypatch.delenv("CONFIGURATION_DIRECTORY", raising=False)


def test_without_any() -> None:
    assert settings() == Settings(frozenset(), "config")


def test_a_file(home: Path) -> None:
    write(
        home / ".config" / "arvados",
        f"# ours\n\n ARV_DOCKER_TRUSTED_WRITERS = {ONE}, {TWO} \nARV_DOCKER_IMAGE_ID=manifest\n",
    )
    assert settings() == Settings(frozenset((ONE, TWO)), "manifest")


def test_the_environment_wins_key_by_key(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home / ".config" / "arvados", f"ARV_DOCKER_TRUSTED_WRITERS={ONE}\nARV_DOCKER_IMAGE_ID=manifest\n")
    monkeypatch.setenv("ARV_DOCKER_IMAGE_ID", "config")
    assert settings() == Settings(frozenset((ONE,)), "config")
    monkeypatch.setenv("ARV_DOCKER_TRUSTED_WRITERS", "")
    assert settings() == Settings(frozenset(), "config")


def test_the_first_file_counts(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home / "etc" / "arvados", f"ARV_DOCKER_TRUSTED_WRITERS={ONE}\n")
    assert settings().trusted_writers == {ONE}
    write(home / ".config" / "arvados", f"ARV_DOCKER_TRUSTED_WRITERS={TWO}\n")
    assert settings().trusted_writers == {TWO}
    write(home / "systemd", "")
    monkeypatch.setenv("CONFIGURATION_DIRECTORY", f"relative:{home / 'systemd'}")
    assert settings().trusted_writers == frozenset()


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs as a user whom its system does not know."""
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    for asked in (settings, cache_folder, default_folder, lambda: Cluster.from_settings(retries=0)):
        with pytest.raises(BadSettings, match="Set HOME"):
            asked()
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    with pytest.raises(BadSettings, match="Set HOME"):
        cache_folder()


def test_a_folder_in_the_home_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARV_DOCKER_FOLDER", "~no-such-user/images")
    with pytest.raises(BadSettings, match="~no-such-user/images"):
        settings()


@pytest.mark.parametrize("text", [f"{ONE} {TWO}", f"{ONE},{TWO}", f" {ONE} ,\t{TWO}, "])
def test_writers_are_parted_by_blanks_or_commas(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARV_DOCKER_TRUSTED_WRITERS", text)
    assert settings().trusted_writers == {ONE, TWO}


@pytest.mark.parametrize("value", ["me", ONE.upper(), "zzzzz-4zz18-000000000000001", f"{ONE};{TWO}", f"{ONE}0"])
def test_what_is_no_user(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARV_DOCKER_TRUSTED_WRITERS", value)
    with pytest.raises(BadSettings, match="ARV_DOCKER_TRUSTED_WRITERS"):
        settings()


@pytest.mark.parametrize(
    ("value", "first", "stored"),
    [
        ("config", "config", ("config",)),
        ("manifest", "manifest", ("manifest",)),
        ("both", "config", ("config", "manifest")),
        ("config, manifest", "config", ("config", "manifest")),
        ("manifest,config", "manifest", ("config", "manifest")),
    ],
)
def test_kinds_of_image_ids(value: str, first: str, stored: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARV_DOCKER_IMAGE_ID", value)
    found = settings()
    assert (found.image_id, found.by_manifest, found.image_ids()) == (first, first == "manifest", stored)
    assert found.image_ids("manifest") == ("manifest",)
    assert found.image_ids("both") == ("config", "manifest")


@pytest.mark.parametrize("value", ["", "CONFIG", "index", "both,manifest", "config,config"])
def test_what_is_no_kind_of_image_id(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARV_DOCKER_IMAGE_ID", value)
    with pytest.raises(BadSettings, match="ARV_DOCKER_IMAGE_ID"):
        settings()


@pytest.mark.parametrize("line", ["ARV_DOCKER_IMAGE_ID", "ARV_DOCKER_IMAGEID=config", "=x", "nonsense"])
def test_a_line_that_is_no_setting_is_named(home: Path, line: str) -> None:
    path = write(home / ".config" / "arvados", f"# one\n{line}\n")
    with pytest.raises(BadSettings, match=f"{path}, line 2") as caught:
        settings()
    assert caught.value.exit_code == 6


def test_a_file_that_is_no_text(home: Path) -> None:
    write(home / ".config" / "arvados", "").write_bytes(b"\xff\xfe")
    with pytest.raises(BadSettings, match="cannot be read"):
        settings()


def test_mirrors_of_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "ARV_DOCKER_REGISTRY_MIRRORS", "docker.io=one.example/hub, docker.io=two.example quay.io=one.example"
    )
    assert settings().mirrors == {"docker.io": ("one.example/hub", "two.example"), "quay.io": ("one.example",)}


@pytest.mark.parametrize("text", ["one.example", "=one.example", "docker.io="])
def test_what_is_no_mirror(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARV_DOCKER_REGISTRY_MIRRORS", text)
    with pytest.raises(BadSettings, match="ARV_DOCKER_REGISTRY_MIRRORS"):
        settings()


def test_where_a_bad_value_stands(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(home / ".config" / "arvados", "ARV_DOCKER_IMAGE_ID=nonsense\n")
    with pytest.raises(BadSettings) as caught:
        settings()
    assert caught.value.message.startswith(f"{path}: ARV_DOCKER_IMAGE_ID: 'nonsense' is none of")
    monkeypatch.setenv("ARV_DOCKER_IMAGE_ID", "other")
    with pytest.raises(BadSettings, match=r"^ARV_DOCKER_IMAGE_ID: 'other'"):
        settings()
