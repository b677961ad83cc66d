# SPDX-License-Identifier: Apache-2.0
"""The way of the main job: how many functions an ingest runs through, in how many pages, and how deep the calls go.

The command runs as a user runs it, in a process of its own, into a local site that another process serves. The engine
is a small program called ``docker`` that has one image of two layers, so that the way is the same on every machine.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType

from tests.archives import Image, classic, files_of, image

HERE = Path(__file__).resolve().parents[1]
PACKAGE = f"{HERE / 'arv_docker'}{os.sep}"

#: Folders of the package that hold what talks to engines, now and before they were renamed.
ENGINE_ROOMS = ("engines/", "engine/")

#: Seconds that a site has to begin to answer.
_PATIENCE = 30.0

_ENGINE = """#!/bin/sh
case $1 in
version) echo linux/amd64 ;;
image | inspect) cat {folder}/inspect.json ;;
save) cat {folder}/app.tar ;;
*) echo "this engine has no $1" >&2; exit 1 ;;
esac
"""

# -- in the process that is profiled ----------------------------------------------------


@dataclass(slots=True)
class Way:
    """The distinct named functions of the package that ran, and the deepest chain of their calls on one thread.

    Comprehensions, lambdas and the bodies of modules are part of the function or page around them.
    """

    functions: set[CodeType] = field(default_factory=set)
    deepest: list[CodeType] = field(default_factory=list)
    _stacks: threading.local = field(default_factory=threading.local)

    def profile(self, frame: FrameType, event: str, _argument: object) -> None:
        """Note a call or return; a generator that goes on or yields counts as well."""
        code = frame.f_code
        if event not in ("call", "return") or not code.co_filename.startswith(PACKAGE) or code.co_name[0] == "<":
            return
        stack: list[CodeType] = self._stacks.__dict__.setdefault("codes", [])
        if event == "call":
            self.functions.add(code)
            stack.append(code)
            if len(stack) > len(self.deepest):
                self.deepest = list(stack)
        elif stack:
            stack.pop()

    def as_document(self) -> dict[str, object]:
        """The figures, and the names behind them, for the process that asked."""
        return {
            "functions": sorted(map(_name_of, self.functions)),
            "files": sorted({code.co_filename.removeprefix(PACKAGE) for code in self.functions}),
            "deepest": [_name_of(code) for code in self.deepest],
        }


def _name_of(code: CodeType) -> str:
    name = getattr(code, "co_qualname", code.co_name)  # the qualified one from Python 3.11 on
    return f"{code.co_filename.removeprefix(PACKAGE)}:{code.co_firstlineno} {name}"


def profile_command(result: str, arguments: Sequence[str]) -> int:
    """Run ``arv-docker`` with these arguments, and write its way into a file."""
    from arv_docker.cli import arv_docker

    way = Way()
    threading.setprofile(way.profile)
    sys.setprofile(way.profile)
    try:
        return arv_docker.main(arguments)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        Path(result).write_text(json.dumps(way.as_document()))


# -- around it --------------------------------------------------------------------------


def write_engine(folder: Path, made: Image) -> None:
    """Write a program ``docker`` that has one image, called app:1."""
    folder.mkdir()
    inspected = {
        "Id": str(made.parsed.digest),
        "RepoTags": ["app:1"],
        "RepoDigests": [],
        "RootFS": {"Type": "layers", "Layers": [str(diff_id) for diff_id in made.parsed.diff_ids]},
        "Os": "linux",
        "Architecture": "amd64",
        "Size": len(classic(made)),
    }
    (folder / "app.tar").write_bytes(classic(made))
    (folder / "inspect.json").write_text(json.dumps([inspected]))
    (folder / "docker").write_text(_ENGINE.format(folder=shlex.quote(str(folder))))
    (folder / "docker").chmod(0o755)


@contextmanager
def site_served(folder: Path, environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """Serve a new site in a folder, and give the environment of its clients."""
    command = [sys.executable, "-m", "arv_docker.cli.arv_docker", "site"]
    server = subprocess.Popen(
        [*command, "serve", "--dir", str(folder)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + _PATIENCE
        asked = [*command, "env", "--dir", str(folder)]
        while (answer := subprocess.run(asked, env=environment, capture_output=True, text=True)).returncode:
            if time.monotonic() > until or server.poll() is not None:
                raise OSError(f"the site does not answer: {answer.stderr.strip()}")
            time.sleep(0.2)
        yield environment | dict(re.findall(r"^export (\w+)=(\S+)$", answer.stdout, re.MULTILINE))
    finally:
        server.terminate()
        server.wait()


def way_of(arguments: Sequence[str], folder: Path) -> dict[str, list[str]]:
    """Run the command with the engine and a new site in a folder, and give the names that it ran through."""
    made = image(files_of(b"low" * 7_000_000), files_of(b"high"), os="linux", created="2024-01-02T03:04:05Z")
    write_engine(folder / "bin", made)
    foreign = ("ARVADOS_", "ARV_DOCKER_", "DOCKER_", "XDG_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    path = f"{folder / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    environment |= {"HOME": str(folder), "PATH": path, "DOCKER_HOST": f"unix://{folder / 'none.sock'}"}
    result = folder / "way.json"
    script = "import sys; from bench.way import profile_command; sys.exit(profile_command(sys.argv[1], sys.argv[2:]))"
    with site_served(folder / "site", environment) as for_clients:
        line = [sys.executable, "-c", script, str(result), *arguments]
        subprocess.run(line, cwd=HERE, env=for_clients, stdout=subprocess.DEVNULL, check=True)
    names: dict[str, list[str]] = json.loads(result.read_text())
    return names


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures of the way, and the names behind them where they are asked for."""
    options = _parser().parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="way-") as folder:
            names = way_of(options.command or ["ingest", "app:1"], Path(folder))
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"bench.way: {error}", file=sys.stderr)
        return 2
    if options.list:
        print("\n".join(names[options.list]))
    else:
        others = [name for name in names["functions"] if not name.startswith(ENGINE_ROOMS)]
        files = {name.partition(":")[0] for name in others}
        print(f"{len(names['functions'])} functions in {len(names['files'])} files, {len(names['deepest'])} deep")
        print(f"{len(others)} functions in {len(files)} files without those that talk to the engine")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.way",
        description="Profiles an arv-docker command with a small engine and a local site. Prints how many distinct\n"
        "functions of this package ran, in how many files, and how deep their calls went.",
        epilog="examples:\n  python -m bench.way\n  python -m bench.way --list deepest\n"
        "  python -m bench.way ingest --dry-run app:1",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--list", choices=("functions", "files", "deepest"), help="print these names instead, one on a line"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="VERB …", help="the command (ingest app:1)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
