# SPDX-License-Identifier: Apache-2.0
"""Run by the Python of another environment: what arvados-cwl-runner's image look-up gives for each reference.

Reads a JSON list of look-ups from its argument and prints a JSON list of `{"pdh": …}` or `{"error": …}`.
"""

import json
import sys
from types import SimpleNamespace
from typing import Any

import arvados
import arvados.commands.put
from arvados_cwl.arvdocker import arv_docker_get_image  # type: ignore[import-not-found, unused-ignore]


def looked_up(api: Any, look_up: dict[str, Any]) -> dict[str, str]:
    context = SimpleNamespace(
        project_uuid=look_up.get("project"),
        force_docker_pull=False,
        tmp_outdir_prefix="/tmp/",
        match_local_docker=look_up.get("match_local", False),
        copy_deps=look_up.get("copy_deps", False),
        cached_docker_lookups={},
    )
    try:
        return {"pdh": arv_docker_get_image(api, {"dockerPull": look_up["image"]}, look_up.get("pull", False), context)}
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    client = arvados.api("v1")
    json.dump([looked_up(client, it) for it in json.loads(sys.argv[1])], sys.stdout)
