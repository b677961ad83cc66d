# SPDX-License-Identifier: Apache-2.0
"""A command that answers as it is told, in place of an engine's own, and what engines answer."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ONE, TWO, THREE = f"sha256:abcd{'0' * 60}", f"sha256:abcd{'1' * 60}", f"sha256:{'ef' * 32}"

Answer = tuple[int, str, str]  # status, standard output, standard error

#: The answer to "id" is what a build writes into its file; without one it writes none.
_SCRIPT = """#!{python}
import json, os, sys
folder = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(folder, "calls"), "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
answers = json.load(open(os.path.join(folder, "answers.json")))
words = " ".join(sys.argv[1:])
for key, (status, out, err) in answers.items():
    if words.startswith(key):
        if sys.argv[1] == "load":
            out += str(len(sys.stdin.buffer.read()))
        if sys.argv[1] == "build":
            stdin = sys.stdin.buffer.read().decode()
            build = {{"stdin": stdin, "folder": os.getcwd(), "environment": dict(os.environ)}}
            for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE"):
                path = os.environ.get(name, "")
                path = os.path.join(path, "config.json") if os.path.isdir(path) else path
                build[name] = open(path).read() if os.path.isfile(path) else ""
            json.dump(build, open(os.path.join(folder, "built.json"), "w"))
            if "id" in answers and status == 0:
                (file,) = (word.partition("=")[2] for word in sys.argv if word.startswith("--iidfile="))
                open(file, "w").write(answers["id"][1])
        sys.stdout.write(out)
        sys.stderr.write(err)
        sys.exit(status)
sys.exit("no answer to " + words)
"""


def scripted(folder: Path, name: str, answers: Mapping[str, Answer]) -> str:
    """Makes the command, with these answers, each to the calls that begin so; gives the folder, for PATH."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(_SCRIPT.format(python=sys.executable))
    (folder / name).chmod(0o755)
    (folder / "answers.json").write_text(json.dumps(answers))
    return str(folder)


def calls_of(folder: Path) -> list[list[str]]:
    """The arguments of every call so far."""
    return [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


def built_by(folder: Path) -> dict[str, Any]:
    """What the last build found: its standard input, folder, environment, and the files with credentials."""
    found: dict[str, Any] = json.loads((folder / "built.json").read_text())
    return found


def inspected(image_id: str = ONE, **keys: Any) -> str:
    document = {
        "Id": image_id,
        "RepoTags": ["app:1"],
        "RepoDigests": [],
        "RootFS": {"Type": "layers", "Layers": [TWO]},
        "Os": "linux",
        "Architecture": "arm64",
        "Variant": "v8",
        "Size": 1234,
    }
    return json.dumps([{**document, **keys}])


def listing(*ids: str) -> str:
    lines = [{"Repository": "app", "Tag": "1", "ID": it, "CreatedSince": "3 days ago", "Size": "4MB"} for it in ids]
    return "".join(json.dumps(line) + "\n" for line in lines)
