# SPDX-License-Identifier: Apache-2.0
"""A count of how the code is written: functions, names and docstrings, beside those of well-kept packages.

The counts are a mirror, not a gate. They say where a page may be hard to read; whether it is, only a reader can say.
Everything is read from the syntax tree; no counted code is imported or run.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from statistics import median
from typing import IO

HERE = Path(__file__).resolve().parents[1]

#: The published packages that the counts are read beside: the requirement, and the package in it.
PEERS = {
    "pip": "pip==26.3",
    "urllib3": "urllib3==2.8.0",
    "borg": "borgbackup==1.4.5",
    "zarr": "zarr==3.1.6",
    "dulwich": "dulwich==1.2.21",
    "pooch": "pooch==1.9.0",
}

#: Folders whose pages are not counted: copies of other packages, and tests that are installed.
_NOT_COUNTED = {"_vendor", "tests", "testsuite", "testing"}

#: Where borgbackup's build looks for C libraries; nothing is compiled here, but without them it gives no source either.
_PREFIXES = {f"BORG_{name}_PREFIX": "/usr" for name in ("LIBLZ4", "LIBZSTD", "LIBXXHASH", "LIBACL", "OPENSSL")}

# -- words ------------------------------------------------------------------------------


def _vocabulary(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Pronouns of all kinds: personal, possessive, demonstrative, relative, interrogative, indefinite.
PRONOUNS = _vocabulary(
    """
    i we us our you your he him his she her it its itself they them their theirs themselves this that these those
    such one ones who whom whose what which whether whoever whatever none others somebody someone something anybody
    anyone anything everybody everyone everything nobody nothing
    """
)

#: Verbs and nouns that end in -ed and are no participles.
_NO_PARTICIPLES = _vocabulary("bed bleed breed embed exceed feed heed need proceed red seed shed shred speed succeed")

#: Participles and past tenses that do not end in -ed.
_IRREGULAR = _vocabulary(
    """
    became began begun bound broken brought built came caught chosen dealt done drawn driven fallen fed fell felt
    forbidden forgotten found frozen gave given gone grown heard held hidden hung kept knew known laid led left lent
    lost made meant met overwritten paid proven rewritten said saw seen sent shaken shook shown sold sought spent
    spoken stolen stood struck stuck swept taken taught thought thrown told took torn undone understood unheard
    unknown untold went withdrawn won worn wound woven written wrote
    """
)

#: Adjectives and adverbs that are neither verbs nor nouns.
_ADJECTIVES = _vocabulary(
    """
    ahead alike alive alone anew apart aside away common elsewhere ever familiar few finite first fresh full large
    larger largest last latest less naive natural new newest now nowhere obsolete old oldest once only own same short
    silent small smallest still together twice unique usable usual verbatim whole
    """
)

#: How a docstring begins that does not name its object.
_UNNAMED_OBJECT = re.compile(r"(What|Whether|Those|One that|The same)\b")

#: Words that are no nouns, and were once used for parameters and attributes.
_NO_NOUNS = frozenset(("it", "found", "own", "there"))


# -- counting ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """A name or first line that was counted, and where it stands."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


@dataclass(slots=True)
class Census:
    """The functions, classes, docstrings, parameters and attributes of a package."""

    lengths: list[int] = field(default_factory=list)
    functions: list[Place] = field(default_factory=list)
    classes: list[Place] = field(default_factory=list)
    summaries: list[Place] = field(default_factory=list)
    variables: list[Place] = field(default_factory=list)

    @property
    def lines(self) -> int:
        """All lines of all pages, empty ones and comments too."""
        return sum(self.lengths)


def census_of(package: Path) -> Census:
    """Count the pages below a folder, but for tests and copies of other packages."""
    census = Census()
    if not package.is_dir():
        raise NotADirectoryError(f"no folder {package}")
    for file in sorted(package.rglob("*.py")):
        name = file.relative_to(package)
        if not _NOT_COUNTED & set(name.parts[:-1]):
            text = file.read_text(encoding="utf-8")
            census.lengths.append(len(text.splitlines()))
            _count_page(census, str(name), ast.parse(text))
    return census


def _count_page(census: Census, file: str, page: ast.Module) -> None:
    for node in ast.walk(page):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            arguments = node.args
            named = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
            census.variables += [Place(file, argument.lineno, argument.arg) for argument in named]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not re.fullmatch("__.+__", node.name):
            census.functions.append(Place(file, node.lineno, node.name))
        if isinstance(node, ast.ClassDef):
            census.classes.append(Place(file, node.lineno, node.name))
            census.variables += [Place(file, line, name) for line, name in _attributes(node)]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            summary = (ast.get_docstring(node) or "").partition("\n")[0].strip()
            if summary:
                census.summaries.append(Place(file, getattr(node, "lineno", 1), summary))


def _attributes(owner: ast.ClassDef) -> Iterator[tuple[int, str]]:
    """The attributes that a class declares or its methods set, with their lines."""
    for statement in owner.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            yield statement.lineno, statement.target.id
    for node in ast.walk(owner):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value):
            yield node.lineno, node.attr


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


# -- measures ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Measure:
    """A row of the table: its key, its title and definition, its value in a package, and the places behind that."""

    key: str
    title: str
    definition: str
    value: Callable[[Census], float]
    places: Callable[[Census], list[Place]]
    unit: str = ""


def _one_word(census: Census) -> list[Place]:
    return [place for place in _distinct(census.functions) if "_" not in place.text.strip("_")]


def _lone(census: Census) -> list[Place]:
    names = [*census.functions, *census.classes]
    lone = [place for place in names if is_lone_participle_or_adjective(place.text)]
    return _distinct(lone, key=lambda name: name.strip("_").lower())


def is_lone_participle_or_adjective(name: str) -> bool:
    """Return whether a function's or class's name is a single word, and that a participle, adjective or adverb."""
    word = name.strip("_")
    if not re.fullmatch("[A-Z]?[a-z]+", word):
        return False
    word = word.lower()
    return word in _IRREGULAR | _ADJECTIVES or (word.endswith("ed") and word not in _NO_PARTICIPLES)


def _distinct(places: Sequence[Place], key: Callable[[str], str] = str) -> list[Place]:
    """Keep the first place of each name, as ``key`` spells names."""
    return list({key(place.text): place for place in reversed(places)}.values())[::-1]


def _with_pronouns(census: Census) -> list[Place]:
    return [place for place in census.summaries if any(word in PRONOUNS for word in _words(place.text))]


def _words(text: str) -> list[str]:
    return re.findall("[a-z]+", text.lower())


def _pronoun_share(census: Census) -> float:
    words = [word for place in census.summaries for word in _words(place.text)]
    return _percent(sum(word in PRONOUNS for word in words), len(words))


def _without_object(census: Census) -> list[Place]:
    return [place for place in census.summaries if _UNNAMED_OBJECT.match(place.text)]


def _no_nouns(census: Census) -> list[Place]:
    return [place for place in census.variables if place.text.strip("_") in _NO_NOUNS]


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0


def _functions_per_1000_lines(census: Census) -> float:
    return 1000 * len(census.functions) / census.lines if census.lines else 0.0


def _one_word_share(census: Census) -> float:
    return _percent(len(_one_word(census)), len(_distinct(census.functions)))


MEASURES = (
    Measure(
        "functions",
        "functions in 1,000 lines",
        "functions and methods, nested ones too, without those named __like_this__; lines of every kind",
        _functions_per_1000_lines,
        lambda census: census.functions,
    ),
    Measure(
        "one_word",
        "function names of one word",
        "share of the distinct names of those functions; underscores around a name do not make two words of it",
        _one_word_share,
        _one_word,
        "%",
    ),
    Measure(
        "lone",
        "lone participles or adjectives",
        "words that are the whole name of a function or class: participles, past tenses, adjectives, adverbs",
        lambda census: len(_lone(census)),
        _lone,
    ),
    Measure(
        "pronouns",
        "pronouns in docstrings",
        "share of pronouns of any kind among the words in the first lines of docstrings",
        _pronoun_share,
        _with_pronouns,
        "%",
    ),
    Measure(
        "unnamed_object",
        "docstrings without their object",
        "docstrings that begin with What, Whether, Those, One that, The same",
        lambda census: len(_without_object(census)),
        _without_object,
    ),
    Measure(
        "no_nouns",
        "variables that are no nouns",
        "parameters, and attributes that a class declares or sets on self, named it, found, own or there",
        lambda census: len(_no_nouns(census)),
        _no_nouns,
    ),
    Measure(
        "module",
        "lines of the median module",
        "lines of every kind",
        lambda census: median(census.lengths or [0]),
        lambda _: [],
    ),
)


# -- other packages ---------------------------------------------------------------------


def fetch_peers(folder: Path) -> dict[str, Path]:
    """Fetch the published packages with pip into an environment of their own, and give the folder of each."""
    venv.create(folder / "environment", with_pip=True)
    pip = [str(folder / "environment" / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    downloads = folder / "downloads"
    command = [*pip, "download", "--no-deps", "--dest", str(downloads), *PEERS.values()]
    subprocess.run(command, check=True, env=os.environ | _PREFIXES, stdout=sys.stderr)
    for archive in downloads.iterdir():
        unpack_pages(archive, folder / "pages")
    return {name: _package_in(folder / "pages", name) for name in PEERS}


def unpack_pages(archive: Path, folder: Path) -> None:
    """Write the Python pages of a wheel or source archive below a folder."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for name in wheel.namelist():
                _write_page(folder, name, io.BytesIO(wheel.read(name)))
        return
    with tarfile.open(archive) as source:
        for member in source:
            if member.isfile():
                _write_page(folder, member.name, source.extractfile(member))


def _write_page(folder: Path, name: str, content: IO[bytes] | None) -> None:
    path = PurePosixPath(name)
    if content is None or path.suffix != ".py" or path.is_absolute() or ".." in path.parts:
        return
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(content.read())


def _package_in(folder: Path, name: str) -> Path:
    """The folder of a package, wherever its archive has that."""
    found = sorted(folder.rglob(f"{name}/__init__.py"), key=lambda path: len(path.parts))
    if not found:
        raise FileNotFoundError(f"no package {name} in what pip fetched")
    return found[0].parent


def earlier(commit: str, folder: Path) -> Path:
    """Write this package as it was at a commit below a folder, and give where."""
    archive = subprocess.run(
        ["git", "archive", commit, "arv_docker"], cwd=HERE, check=True, stdout=subprocess.PIPE
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as pages:
        for member in pages:
            if member.isfile():
                _write_page(folder, member.name, pages.extractfile(member))
    return folder / "arv_docker"


# -- the command ------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the counts of the package, and of others beside it where that is asked for."""
    options = _parser().parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="house-") as folder:
            columns = _columns(options, Path(folder))
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"bench.house: {error}", file=sys.stderr)
        return 2
    if options.where:
        measure = next(measure for measure in MEASURES if measure.key == options.where)
        places = measure.places(next(iter(columns.values())))
        print("\n".join(map(str, sorted(places, key=lambda place: (place.file, place.line)))))
    elif options.json:
        values = {name: {row.key: round(row.value(census), 1) for row in MEASURES} for name, census in columns.items()}
        print(json.dumps(values, indent=2))
    else:
        print(table(columns), end="")
    return 0


def _parser() -> argparse.ArgumentParser:
    rows = "\n".join(f"  {measure.key:15} {measure.title}: {measure.definition}" for measure in MEASURES)
    parser = argparse.ArgumentParser(
        prog="python -m bench.house",
        description="Counts how the code is written: functions, names and docstrings.\n"
        "It is a mirror, not a gate: a page that reads better outside the range of the others stays there.",
        epilog=f"measures:\n{rows}\n\nexamples:\n  python -m bench.house --before v0.1 --peers\n"
        "  python -m bench.house --where lone",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "package", nargs="?", type=Path, default=HERE / "arv_docker", help="the folder to count (arv_docker)"
    )
    parser.add_argument("--before", metavar="COMMIT", help="count this package as it was at a commit, too")
    parser.add_argument(
        "--peers", action="store_true", help=f"fetch and count published packages, too: {', '.join(PEERS.values())}"
    )
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    parser.add_argument(
        "--where",
        metavar="MEASURE",
        choices=[measure.key for measure in MEASURES],
        help="list the places that a measure counts instead",
    )
    return parser


def _columns(options: argparse.Namespace, folder: Path) -> dict[str, Census]:
    columns = {options.package.resolve().name: census_of(options.package)}
    if options.before:
        columns[options.before] = census_of(earlier(options.before, folder / "before"))
    if options.peers:
        columns |= {name: census_of(package) for name, package in fetch_peers(folder / "peers").items()}
    return columns


def table(columns: dict[str, Census]) -> str:
    """A Markdown table with a row for each measure and a column for each package."""
    names = list(columns)
    lines = [f"| | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
    for measure in MEASURES:
        cells = [_cell(measure, census) for census in columns.values()]
        lines.append(f"| {measure.title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(measure: Measure, census: Census) -> str:
    value = measure.value(census)
    text = f"{value:.1f}" if measure.unit else f"{value:.0f}"
    return f"{text} {measure.unit}".strip()


if __name__ == "__main__":
    sys.exit(main())
