# SPDX-License-Identifier: Apache-2.0
"""One environment, first with this package in place of the SDK's module, then with the original: the same is done.

The site is served, Docker is real, arvados-cwl-runner is the one from the package index.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import arvados
import pytest

from arv_docker.testing import file_layer

from .archives import image_archive
from .engines import Docker, Image
from .environments import RUNNER, Environment
from .sites import command, finished, served, show, started
from .test_site_workflows import TOOL, WORKFLOW

#: How `main` ends, for each of several lists of arguments: it returns, or ends the program with a code.
MAIN = """\
import io, json, sys
from arvados.commands.keepdocker import main
ends = []
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments, stdout=io.StringIO(), install_sig_handlers=False)
        ends.append("returns")
    except SystemExit as ended:
        ends.append(f"exit {ended.code or 0}")
print(json.dumps(ends))
"""


@contextmanager
def original(environment: Environment) -> Iterator[None]:
    """The environment with the SDK's own module and command, for as long as the block lasts."""
    environment.run("arv-docker", "install-command", "--undo")
    try:
        yield
    finally:
        environment.run("arv-docker", "install-command", "--module")


def engine_variables(docker: Docker) -> dict[str, str]:
    return {name: value for name, value in docker.environment.items() if name.startswith("DOCKER_")}


@pytest.mark.conforms("K23")
@pytest.mark.engine("docker", "busybox")
def test_main_returns_where_the_original_does(
    environment: Environment, docker: Docker, base_image: Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, tag = base_image.reference.rsplit(":", 1)

    def ends(folder: Path) -> list[str]:
        with served(folder) as variables:
            api: Any = arvados.api_from_config("v1", variables | {"ARVADOS_API_HOST_INSECURE": "1"})
            project = api.groups().create(body={"group_class": "project", "name": "p"}).execute()["uuid"]
            uses = [
                [name, tag],
                [name, tag],
                ["--project-uuid", project, name, tag],
                ["--force", name, tag],
                ["images"],
                [],
                ["there-is-none", tag],
            ]
            every = engine_variables(docker) | {"HOME": os.environ["HOME"]} | variables
            done = environment.run("python", "-c", MAIN, json.dumps(uses), variables=every)
            return list(json.loads(done.stdout.splitlines()[-1]))

    ours = ends(tmp_path / "ours")
    with original(environment):
        theirs = ends(tmp_path / "theirs")
    show(capsys, f"main: here {ours}", f"      there {theirs}")
    assert ours == theirs
    assert ours[:2] == ["returns", "exit 0"]


def user(site: Path, name: str) -> tuple[str, str]:
    """The UUID and a token of a new user of a site."""
    said = [
        finished(started(command("site", "user", verb, name, "--dir", site), os.environ))
        for verb in ("create", "token")
    ]
    assert all(done.status == 0 for done in said), [done.told for done in said]
    return said[0].out.strip(), said[1].out.strip()


def registered(
    environment: Environment, variables: Mapping[str, str], workflow: Path, api: Any, title: str
) -> dict[str, Any]:
    """What a workflow's registration into a new project of a user leaves there."""
    project = api.groups().create(body={"group_class": "project", "name": title}).execute()["uuid"]
    done = environment.run(
        "arvados-cwl-runner", "--create-workflow", "--project-uuid", project, workflow, variables=variables, check=False
    )
    if done.returncode != 0:
        return {"exit code": done.returncode, "told": done.stderr}
    record = api.workflows().get(uuid=done.stdout.strip().splitlines()[-1]).execute()
    owned = [["owner_uuid", "=", project]]
    images = [["portable_data_hash", "in", pdhs_of(api)], *owned]
    links = api.links().list(filters=[["link_class", "like", "docker_image%"], *owned]).execute()["items"]
    collections = api.collections().list(filters=images).execute()["items"]
    return {
        "exit code": 0,
        "owner": record["owner_uuid"] == project,
        "pinned": sorted(pdh for pdh in pdhs_of(api) if pdh in record["definition"]),
        "images": sorted(it["portable_data_hash"] for it in collections),
        "links": sorted(
            (it["link_class"], it["name"]) for it in links if it["link_class"] in ("docker_image_hash", REPO_TAG)
        ),
    }


REPO_TAG = "docker_image_repo+tag"


def pdhs_of(api: Any) -> list[str]:
    """The portable data hashes of all collections that hold an image."""
    links = api.links().list(filters=[["link_class", "=", REPO_TAG]], limit=1000).execute()["items"]
    heads = [["uuid", "in", [it["head_uuid"] for it in links]]]
    return sorted({it["portable_data_hash"] for it in api.collections().list(filters=heads).execute()["items"]})


@pytest.mark.engine("docker")
def test_a_workflow_is_registered_by_a_user_who_did_not_store_its_image(
    environment: Environment, docker: Docker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An administrator stored the images in a project that everybody reads; the cluster would run them."""
    (tmp_path / "tool.cwl").write_text(TOOL)
    (tmp_path / "wf.cwl").write_text(WORKFLOW)
    site = tmp_path / "site"
    with served(site) as variables:
        admin: Any = arvados.api_from_config("v1", variables | {"ARVADOS_API_HOST_INSECURE": "1"})
        storing, _ = user(site, "keeper")
        project = admin.groups().create(body={"group_class": "project", "name": "images"}).execute()["uuid"]
        everybody = f"{project[:5]}-j7d0g-fffffffffffffff"
        for tail, permission in ((everybody, "can_read"), (storing, "can_write")):
            body = {"link_class": "permission", "name": permission, "tail_uuid": tail, "head_uuid": project}
            admin.links().create(body=body).execute()
        token = finished(started(command("site", "user", "token", "keeper", "--dir", site), os.environ)).out.strip()
        for name, tag in (("arvados/jobs", RUNNER.rpartition("=")[2]), ("example/tool", "1")):
            archive = image_archive(tmp_path / "image.tar", [file_layer(name.encode())], name=f"{name}:{tag}")
            stored = ("ingest", "--project-uuid", project, f"docker-archive:{archive}")
            done = finished(started(command(*stored), os.environ | variables | {"ARVADOS_API_TOKEN": token}))
            assert done.status == 0, done.told
        uuid, bobs = user(site, "bob")
        as_bob = engine_variables(docker) | {"HOME": os.environ["HOME"]} | variables | {"ARVADOS_API_TOKEN": bobs}
        api: Any = arvados.api_from_config("v1", as_bob | {"ARVADOS_API_HOST_INSECURE": "1"})
        assert api.users().current().execute()["uuid"] == uuid != storing
        ours = registered(environment, as_bob, tmp_path / "wf.cwl", api, "ours")
        with original(environment):
            theirs = registered(environment, as_bob, tmp_path / "wf.cwl", api, "theirs")
    show(capsys, f"here  {ours}", f"there {theirs}")
    assert ours == theirs
    assert ours["exit code"] == 0
    assert ours["pinned"]
