# SPDX-License-Identifier: Apache-2.0
"""Manual pages: one of each verb, whole, and without a word that groff takes for a command."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from arv_docker.cli import arv_docker, manual

pytest.importorskip("argparse_manpage")

PAGES = manual.pages()


def test_every_command_and_verb_has_a_page(tmp_path: Path) -> None:
    assert manual.main([str(tmp_path / "man1")]) == 0
    written = {path.stem for path in (tmp_path / "man1").iterdir()}
    assert written == {"arv-docker", "arv-keepdocker", *(f"arv-docker-{verb}" for verb in arv_docker.VERBS)}


@pytest.mark.skipif(shutil.which("groff") is None, reason="no groff in PATH")
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_read_without_a_warning(name: str) -> None:
    line = ["groff", "-Kutf8", "-man", "-Tutf8", "-ww", "-P-cbou", "-rLL=78n"]
    done = subprocess.run(line, input=PAGES[name], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    text = " ".join(done.stdout.split())
    assert text.startswith(f"{name.upper()}(1)")
    assert "example" in text


def test_a_page_has_each_option_of_its_verb() -> None:
    parser = arv_docker.parser(["ingest"])
    (children,) = (action for action in parser._actions if action.dest == "==SUPPRESS==" and action.choices)
    assert isinstance(children.choices, dict)
    options = [option for action in children.choices["ingest"]._actions for option in action.option_strings]
    text = PAGES["arv-docker-ingest"].replace("\\", "")
    assert [option for option in options if option not in text] == []
