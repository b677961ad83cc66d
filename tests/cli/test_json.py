# SPDX-License-Identifier: Apache-2.0
"""The contract of `--json`: a schema of each command, that describes all it has. Every test that runs a command holds
what it prints against these, by `json_contract.check`; here are the commands that no other test runs in this process.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from arv_docker.site import LocalSite

from .. import json_contract
from ..arvados.fake_api import FakeApi
from .conftest import Run

COMMANDS = json_contract.commands()


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """The schemas of objects within a schema."""
    if isinstance(schema, dict):
        if "properties" in schema:
            yield schema
        schema = list(schema.values())
    if isinstance(schema, list):
        for value in schema:
            yield from objects(value)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_property_is_described(command: str) -> None:
    schema = json_contract.schema_of(command)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["title"] == f"arv-docker {command} --json"
    for described in objects(schema):
        assert set(described.get("required", [])) <= described["properties"].keys()
        assert [name for name, value in described["properties"].items() if not value.get("description")] == []


def test_there_is_no_schema_of_another_command() -> None:
    names = {path.stem for path in json_contract.FOLDER.glob("*.json")}
    assert names == {command.replace(" ", "-") for command in COMMANDS}
    table = (json_contract.FOLDER / "README.md").read_text()
    assert [name for name in names if f"({name}.json)" not in table] == []


def test_what_is_not_as_the_schema_has_it_fails() -> None:
    json_contract.check(["cache", "gc", "--json"], '{"removed_bytes": 1}')
    for wrong in ('{"removed_bytes": "1"}', "{}", '{"removed_bytes": 1, "more": 1}'):
        with pytest.raises(AssertionError, match="cache gc --json is not as docs/json has it"):
            json_contract.check(["cache", "gc", "--json"], wrong)


def test_commands_that_no_other_test_runs(api: FakeApi, run: Run, archive: Path) -> None:
    assert run("ingest", "--json", "--from-archive", str(archive)).code == 0
    for arguments in (
        ["link", "app:1", "other:1"],
        ["tag", "app:1", "other:1"],
        ["images"],
        ["cache", "list"],
        ["cache", "gc"],
        ["cache", "clear"],
        ["ls", f"docker-archive:{archive}"],
    ):
        done = run(*arguments, "--json")
        assert done.code == 0, done
        assert json.loads(done.out) is not None


def test_commands_about_a_site(run: Run, tmp_path: Path) -> None:
    with LocalSite(tmp_path / "site"):
        pass
    for arguments in (["site", "status"], ["site", "status", "--check"], ["site", "user", "list"]):
        done = run(*arguments, "--json", "--dir", str(tmp_path / "site"))
        assert done.code == 0, done
        assert json.loads(done.out)
