# SPDX-License-Identifier: Apache-2.0
"""``arv-docker completion``: real shells complete what the parsers know."""

from __future__ import annotations

import os
import pty
import select
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from arv_docker.cli.completion import COMMANDS, SHELLS, script

from .conftest import Run

#: The beginning of a line, and the word that the last one becomes; FILE and FOLDER stand in a folder of their own.
LINES = {
    "arv-docker inge": "ingest",
    "arv-docker --local inge": "ingest",
    "arv-docker install": "install-command",
    "arv-docker ingest --eng": "--engine",
    "arv-docker ingest --local --eng": "--engine",
    "arv-docker ingest --engine pod": "podman",
    "arv-docker ingest --engine docker --imag": "--image-",
    "arv-docker registry pus": "push",
    "arv-docker registry push --insec": "--insecure",
    "arv-docker site user tok": "token",
    "arv-docker ingest --from-archive {folder}/arch": "{folder}/archive.tar",
    "arv-docker cache gc --older": "--older-than",
    "arv-keepdocker --force-im": "--force-image-format",
    "arv-keepdocker --batch-p": "--batch-progress",
}

_BASH = """
source {script}
COMP_WORDS=({words}) COMP_CWORD={last} COMPREPLY=()
function=$(complete -p {command} | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$function {command} "${{COMP_WORDS[{last}]}}" "${{COMP_WORDS[{last}-1]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""

_ZSH = """
PS1=; unsetopt beep list_ambiguous; autoload -Uz compinit; compinit -u -D
eval "$(cat {script})"
show() {{ print -r -- "$BUFFER" > {answer}.new; mv {answer}.new {answer} }}
zle -N show; bindkey '^X' show
print -r -- ready > {answer}.new; mv {answer}.new {answer}
"""


def by_bash(line: str, file: Path) -> list[str]:
    words = line.split(" ")
    text = _BASH.format(script=file, words=shlex.join(words), last=len(words) - 1, command=words[0])
    return _output("bash", "--norc", "-c", text)


def by_fish(line: str, file: Path) -> list[str]:
    answers = _output("fish", "--no-config", "-c", f"source {file}; complete -C {shlex.quote(line)}")
    return [answer.partition("\t")[0] for answer in answers]


def by_zsh(line: str, file: Path) -> list[str]:
    """The last word of the line after somebody pressed the tabulator in a terminal."""
    answer = file.with_name("answer")
    (file.with_name("rc")).write_text(_ZSH.format(script=file, answer=answer))
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp("zsh", ["zsh", "-f", "-i"])
    try:
        os.write(terminal, f"source {file.with_name('rc')}\n".encode())
        assert _answered(terminal, answer) == "ready"
        os.write(terminal, f"{line}\t\x18".encode())
        return [_answered(terminal, answer).split(" ", 1)[1].rstrip().rpartition(" ")[2]]
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(terminal)


def _answered(terminal: int, answer: Path) -> str:
    """The text of the file that the shell writes; what it draws meanwhile is read, lest it waits."""
    until = time.monotonic() + 60
    while not answer.exists():
        assert time.monotonic() < until, "zsh does not answer"
        if select.select([terminal], [], [], 0.02)[0]:
            os.read(terminal, 4096)
    text = answer.read_text().strip()
    answer.unlink()
    return text


def _output(*line: str) -> list[str]:
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


BY_SHELL: dict[str, Callable[[str, Path], list[str]]] = {"bash": by_bash, "zsh": by_zsh, "fish": by_fish}


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("shell", [pytest.param(shell, marks=pytest.mark.engine(shell)) for shell in SHELLS])
def test_a_shell_completes(shell: str, line: str, tmp_path: Path) -> None:
    file, folder = tmp_path / "script", tmp_path / "folder"
    file.write_text(script(line.partition(" ")[0], shell))
    folder.mkdir()
    (folder / "archive.tar").touch()
    answers = BY_SHELL[shell](line.format(folder=folder), file)
    expected = LINES[line].format(folder=folder)
    assert answers
    assert os.path.commonprefix(answers) == expected  # noqa: RUF071 -- words, not paths


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("shell", [pytest.param(shell, marks=pytest.mark.engine(shell)) for shell in SHELLS])
def test_a_script_is_one(shell: str, command: str, run: Run) -> None:
    outcome = run("completion", shell, "--command", command)
    assert (outcome.code, outcome.err) == (0, "")
    assert subprocess.run([shell, "-n"], input=outcome.out, capture_output=True, text=True).stderr == ""


def test_another_shell_is_none_of_these(run: Run) -> None:
    outcome = run("completion", "ksh")
    assert outcome.code == 2
    assert "bash" in outcome.err
    assert outcome.out == ""
