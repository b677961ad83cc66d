# SPDX-License-Identifier: Apache-2.0
"""Manual pages of the commands, made from their parsers: ``python -m arv_docker.cli.manual FOLDER``.

For who packages this; argparse-manpage is needed, which the package itself does not install.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .. import __version__
from . import HelpFormatter, arv_docker, arv_keepdocker


def pages() -> dict[str, str]:
    """Return the manual pages by name: one of each command, and one of each verb of ``arv-docker``."""
    verbs = arv_docker.parser()
    (children,) = (action for action in verbs._actions if isinstance(action, argparse._SubParsersAction))
    made = {
        "arv-docker": _page(arv_docker.parser(()), "arv-docker", "container images in Arvados Keep"),
        "arv-keepdocker": _page(arv_keepdocker.parser(), "arv-keepdocker", "put a container image into Keep"),
    }
    for verb, summary in arv_docker.VERBS.items():
        name = f"arv-docker-{verb}"
        made[name] = _page(children.choices[verb], name, summary)
    return made


def _page(parser: argparse.ArgumentParser, name: str, summary: str) -> str:
    from argparse_manpage.manpage import Manpage

    data = {"project_name": "arv-docker", "version": __version__, "manual_title": "arv-docker", "description": summary}
    page = Manpage(parser, _data=data)
    page.prog = name  # a page of a verb has one word for its name, as those of git
    return str(page)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pages into a folder, as NAME.1."""
    parser = argparse.ArgumentParser(
        prog="python -m arv_docker.cli.manual",
        description="Write manual pages of arv-docker, its verbs, and arv-keepdocker. SOURCE_DATE_EPOCH dates them.",
        epilog="example:\n  python -m arv_docker.cli.manual /usr/local/share/man/man1\n",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="the folder to write into; it is made if missing")
    folder = parser.parse_args(arguments).folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / f"{name}.1").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
