# SPDX-License-Identifier: Apache-2.0
"""The published arvados-cwl-runner, unmodified, registers and submits workflows to an embedded site over HTTPS."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import arvados
import pytest

from arv_docker.testing import file_layer

from .archives import image_archive
from .engines import Docker
from .environments import RUNNER
from .sites import command, finished, served, started
from .test_site_clients import Clients, installed

TOOL = """\
cwlVersion: v1.2
class: CommandLineTool
requirements:
  DockerRequirement:
    dockerPull: example/tool:1
baseCommand: [echo]
inputs:
  word: {type: string, default: hello, inputBinding: {position: 1}}
outputs:
  out: stdout
stdout: out.txt
"""

WORKFLOW = """\
cwlVersion: v1.2
class: Workflow
inputs:
  word: {type: string, default: hello}
outputs:
  out: {type: File, outputSource: say/out}
steps:
  say: {run: tool.cwl, in: {word: word}, out: [out]}
"""


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Clients:
    """An environment of its own with arvados-cwl-runner and nothing of this package."""
    return installed(tmp_path_factory.mktemp("runner") / "venv", RUNNER)


@pytest.fixture
def site(tmp_path: Path, docker: Docker) -> Iterator[dict[str, str]]:
    """The variables of a served site that has the runner's image and the tool's, and of an engine, which has neither:
    the runner asks whether it has another tool by that name."""
    with served(tmp_path / "site") as variables:
        variables |= {name: value for name, value in docker.environment.items() if name.startswith("DOCKER_")}
        for name, tag in (("arvados/jobs", RUNNER.rpartition("=")[2]), ("example/tool", "1")):
            archive = image_archive(tmp_path / "image.tar", [file_layer(name.encode())], name=f"{name}:{tag}")
            done = finished(started(command("ingest", f"docker-archive:{archive}"), os.environ | variables))
            assert done.status == 0, done.told
        yield variables


def test_a_workflow_is_registered_and_submitted(
    runner: Clients, site: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", site["SSL_CERT_FILE"])
    (tmp_path / "tool.cwl").write_text(TOOL)
    (tmp_path / "wf.cwl").write_text(WORKFLOW)
    api: Any = arvados.api_from_config("v1", site)
    registered = runner.run("arvados-cwl-runner", "--create-workflow", str(tmp_path / "wf.cwl"), **site).out.strip()
    workflow = api.workflows().get(uuid=registered).execute()
    assert workflow["name"]
    jobs = [["link_class", "=", "docker_image_repo+tag"], ["name", "like", "arvados/jobs:%"]]
    image = api.links().list(filters=jobs).execute()["items"][0]["head_uuid"]
    pdh = api.collections().get(uuid=image).execute()["portable_data_hash"]
    assert pdh in workflow["definition"]
    run = runner.run("arvados-cwl-runner", "--submit", "--no-wait", str(tmp_path / "wf.cwl"), **site).out.strip()
    request = api.container_requests().get(uuid=run).execute()
    container = api.containers().get(uuid=request["container_uuid"]).execute()
    assert (request["state"], container["state"], container["container_image"]) == ("Committed", "Queued", pdh)
    assert json.dumps(request["mounts"]).count("wf.cwl")
    # Who uses the image: one request for all that lies in the home.
    listed = (
        api.groups()
        .contents(
            uuid=request["owner_uuid"],
            filters=[["uuid", "is_a", "arvados#containerRequest"]],
            include=["container_uuid"],
            select=["uuid", "container_uuid", "container_image"],
        )
        .execute()
    )
    assert [item["container_image"] for item in listed["included"]] == [pdh]
    # What is registered runs too, and what is run may be ended.
    again = runner.run("arvados-cwl-runner", "--submit", "--no-wait", f"arvwf:{registered}", **site).out.strip()
    api.container_requests().update(uuid=again, body={"priority": 0}).execute()
    assert api.container_requests().get(uuid=again).execute()["priority"] == 0
