# SPDX-License-Identifier: Apache-2.0
"""The Mermaid diagrams of the documentation. `bin/diagrams` draws them in a browser; here is what needs none."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[1]
_BLOCK = re.compile(r"^```mermaid\n(.*?)^```", re.MULTILINE | re.DOTALL)
_NODE = re.compile(r"^ *(?:subgraph )?(\w+)(?=\(\[|\[\(|\[|\{|\()", re.MULTILINE)
_EDGE = re.compile(r"(?:-->|-\.->|-\. .*? \.->)(?:\|[^|]*\|)? *(\w+)")


def diagrams() -> dict[str, str]:
    """Every diagram of the repository's pages, by page and place."""
    pages = [*TOP.glob("*.md"), *(TOP / "docs").rglob("*.md")]
    return {
        f"{page.relative_to(TOP)}:{number}": text
        for page in sorted(pages)
        for number, text in enumerate(_BLOCK.findall(page.read_text()), start=1)
    }


def test_the_structure_and_the_main_job_are_drawn() -> None:
    assert {"docs/internals/structure.md:1", "docs/internals/pipeline.md:1"} <= set(diagrams())


@pytest.mark.parametrize("name", diagrams())
def test_brackets_are_closed_and_arrows_lead_to_what_is_drawn(name: str) -> None:
    text = diagrams()[name]
    assert text.startswith("flowchart ")
    assert text.count('"') % 2 == 0
    bare = re.sub(r'"[^"]*"', "", text)
    assert all(bare.count(opened) == bare.count(closed) for opened, closed in ("[]", "()", "{}"))
    assert bare.count("subgraph ") == len(re.findall(r"^ *end$", bare, re.MULTILINE))
    defined = set(re.findall(r"(\w+)(?=[\[({]+\")", text))
    assert set(_EDGE.findall(text)) <= defined


@pytest.mark.long
def test_a_browser_draws_them() -> None:
    if not (shutil.which("npm") and shutil.which("chromium")):
        assert not os.environ.get("CI"), "npm or chromium is missing"
        pytest.skip("npm or chromium is missing")
    drawn = subprocess.run([TOP / "bin" / "diagrams"], capture_output=True, text=True, timeout=600)
    assert (drawn.returncode, drawn.stderr) == (0, "")
