# SPDX-License-Identifier: Apache-2.0
"""Puts each archive of a folder into a site of its own: `python ingest_each.py FOLDER`, with PYTHONPATH a checkout.

Run by `test_archives.py`, also in older checkouts, so it uses the command alone. A folder has `archive`, and
`options.json` with the options of `ingest`. Prints JSON: for each folder, from the file and piped in, the exit code,
the IDs of the images that were stored, and the names by which they are linked.
"""

import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path

from arv_docker.cli.arv_docker import main


def ingested(archive: Path, options: list[str], *, piped: bool) -> tuple[int, list[str], list[str]]:
    """The exit code, and the IDs and names of the images that are in the site afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        source = "docker-archive:-" if piped else f"docker-archive:{archive}"
        descriptor = os.open(archive, os.O_RDONLY)
        os.dup2(descriptor, 0)
        os.close(descriptor)
        with open(0, closefd=False) as sys.stdin:  # with nothing in its buffer of the archive before
            code, _ = said(["ingest", f"--local={folder}/site", *options, source])
        _, out = said(["images", "--json", f"--local={folder}/site"])
    rows = json.loads(out or "[]")
    names = {f"{it['repository']}:{it['tag']}" for it in rows if it["repository"] not in (None, "<none>")}
    return code, sorted({it["image_id"] for it in rows}), sorted(names)


def said(words: list[str]) -> tuple[int, str]:
    """The exit code of the command, and what it prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        try:
            code = main(words)
        except SystemExit as ended:
            code = int(ended.code or 0)
    return code, out.getvalue()


if __name__ == "__main__":
    found = {}
    for case in sorted(Path(sys.argv[1]).iterdir()):
        options = json.loads((case / "options.json").read_text())
        found[case.name] = [ingested(case / "archive", options, piped=piped) for piped in (False, True)]
    sys.stdout.write(json.dumps(found))
