# SPDX-License-Identifier: Apache-2.0
"""Text of ``inspect``, and the instructions and layers in an image's config."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import one_line
from ..local.progress import size_text

if TYPE_CHECKING:
    from ..model.image import Config

#: What the config says of containers, by the names of a Dockerfile's instructions.
_INSTRUCTIONS = {
    "entrypoint": "Entrypoint",
    "command": "Cmd",
    "env": "Env",
    "user": "User",
    "working_dir": "WorkingDir",
    "exposed_ports": "ExposedPorts",
    "volumes": "Volumes",
    "labels": "Labels",
}


def settings_of(config: Config) -> dict[str, object]:
    """The start of the image's containers, as far as the config says, and the history of its layers."""
    container = _document_of(config).get("config")
    values = container if isinstance(container, dict) else {}
    found: dict[str, object] = {name: values[key] for name, key in _INSTRUCTIONS.items() if values.get(key)}
    lines = [
        {"created_by": str(step.get("created_by") or ""), "empty_layer": bool(step.get("empty_layer"))}
        for step in _steps(config)
    ]
    return {"config": found, "history": lines}


def commands_of(config: Config) -> list[dict[str, object]]:
    """For each layer from the lowest up the command that made it, where the history says as many as there are layers;
    else nothing for each."""
    steps = [step for step in _steps(config) if not step.get("empty_layer")]
    if len(steps) != len(config.diff_ids):
        return [{} for _ in config.diff_ids]
    return [{"created_by": str(step.get("created_by") or "")} for step in steps]


def _document_of(config: Config) -> dict[str, object]:
    from ..model.image import json_object

    return json_object(config.raw, what="the image's config")


def _steps(config: Config) -> list[dict[str, object]]:
    history = _document_of(config).get("history")
    return [step for step in history if isinstance(step, dict)] if isinstance(history, list) else []


def lines_of(document: dict[str, object]) -> Iterator[str]:
    """The document as lines: values that the image states, then each list with its number of entries."""
    return map(one_line, _lines(document))


def _lines(document: dict[str, object]) -> Iterator[str]:
    for key, value in document.items():
        label = key.replace("_", " ")
        if value is None:
            continue
        if isinstance(value, dict):
            yield from (f"{name.replace('_', ' ') + ':':17}{_plain(each)}" for name, each in value.items())
        elif isinstance(value, list):
            yield f"{label + ':':17}{len(value)}"
            yield from (f"  {_entry(item)}" for item in value)
        else:
            shown = f"{size_text(value)} ({value} bytes)" if key == "size" and isinstance(value, int) else value
            yield f"{label + ':':17}{shown}"


def _entry(item: object) -> str:
    if not isinstance(item, dict):
        return str(item)
    if "empty_layer" in item:
        return f"{item['created_by']}{'  (no layer)' if item['empty_layer'] else ''}"
    return "  ".join(size_text(value) if key == "size" else _words(value) for key, value in item.items())


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={each}" if isinstance(each, str) else str(name) for name, each in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
