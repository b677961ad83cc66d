# SPDX-License-Identifier: Apache-2.0
"""Makes `docs/conformance.md` from the markers of the tests: `python -m tests.conformance`.

A test says `@pytest.mark.conforms("K3", "S1")` for each statement that it shows. The statements are written
here in a few words, and so is why one is open; which tests show it is read from the sources.
"""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
PAGE = TOP / "docs" / "conformance.md"

#: What a program that takes the place of `arv-keepdocker` does.
KEEPDOCKER = {
    "K1": "Without arguments, or with `images`: five columns in rank order; a reader that goes away is no error",
    "K2": "`repo:tag extra` is an error of exit code 1; ports, IPv6 hosts and `:443` are split as upstream does",
    "K3": "A first upload: one file `sha256:<id>.tar`, the property, both links with `image_timestamp`, UUID alone",
    "K4": "The same image again: no save, no upload, same UUID",
    "K5": "An image readable in another project: a collection of the same content in mine, links only where missing",
    "K6": "`--force` uploads anew; `--project-uuid` and `--name` count, also a name equal to the image's",
    "K7": "A cluster that does not accept version 2 is refused, or warned of with `--force-image-format`",
    "K8": "An image that only Keep has: links and copies without an engine; one that nobody has is an error",
    "K9": "A daemon that is down is what the message says",
    "K10": "A container of the image's name does not hide the image",
    "K11": "IDs in full, in part, with and without `sha256:`, and `repo@sha256:…` mean the right image",
    "K12": "`--pull` fetches, also what is there already; `--no-pull` never does",
    "K13": "A saved tarball serves again only while it is unchanged",
    "K14": "After an interruption the tarball is kept and used; after success it goes",
    "K15": "Of two processes at once, one uploads",
    "K16": "The order of links: unreadable times last, offsets honoured, a total order, no crash",
    "K17": "The server's rule, also for several links to one collection, and a warning where clients differ",
    "K18": "Listing by name falls back to IDs, filters by project, drops unknown collections, keeps all names",
    "K19": "Archives of every form of Docker's; two images in one are an error",
    "K20": "`--from-archive` without an engine",
    "K21": "`link UUID|PDH NAME` checks the content and writes the links that are missing",
    "K22": "An archive that is not the image that it claims to be is refused",
    "K23": "The names of `arvados.commands.keepdocker`; arvados-cwl-runner works with it",
    "K24": "The collection holds nothing but the tar",
    "K25": "The properties `docker-image-hash` and `docker-image-timestamp`, if asked for",
    "K26": "An exit code for each kind of failure",
    "K27": "Podman's IDs, which have no `sha256:`, are written with it",
}

#: What upstream's arv-keepdocker gets wrong, and this package does not.
SHORTCOMINGS = {
    "S1": "An unknown ID gives an unrelated image",
    "S2": "Bare and short IDs are never found",
    "S3": "A stale hash link keeps the new collection from getting one",
    "S4": "A tag cannot be moved to an older build",
    "S5": "Options equal to the image or tag, and `:443`, break the command line of the upload",
    "S6": "A bad archive is noticed after the upload; a crash leaves what the next run does not complete",
    "S7": "`--pull` ignores the tag, refreshes nothing, and looks at containers and volumes too",
    "S8": "Links and staged tarballs are believed blindly",
    "S9": "The containerd store's IDs become the image's",
    "S10": "`_` and `%` in names are wildcards",
    "S11": "Only the first 100 collections are looked at; names with a digest are not understood",
    "S12": "The upload does not use the `api` that was given",
    "S13": "Links do not belong to the project of the collection",
    "S14": "Two hosts at once make two collections and four links",
    "S15": "`--force` adds an equal collection and links each time",
    "S16": "Save, then read, then send; leftovers in the cache",
    "S17": "Images with common layers share no blocks",
    "S18": "19 requests to do nothing",
    "S19": "Minutes of silence while requests are tried again",
    "S20": "Docker's own words are thrown away, every failure is `no matching image found`",
    "S21": "More than 64 KiB of output of a command stall it",
    "S22": "Twelve characters of an ID of which seven are `sha256:`; no JSON, no filter by project",
    "S23": "Functions call `sys.exit`; tracebacks; reuse and upload look alike",
}

#: A folder of image archives whose file names say what they hold (docs/spec/archive-folder.md).
FOLDER = {
    "G1": "A file name is read as it was written; names of other forms are no archives",
    "G2": "An image name with `/` and `:` is one component of a path, and comes back; a version with `_` is refused",
    "G3": "Which versions are dirty",
    "G4": "The tag that engines take for a version",
    "G5": "Archives alone are listed, in order; the folder of the settings, or the one that is given",
    "G6": "The latest archive of an image",
    "G7": "An image of the engine is archived under the right name",
    "G8": "What is current is not saved again, nor touched",
    "G9": "A new image under the same version; the old archive goes with `--clean` alone, once the new one is complete",
    "G10": "`--clean` leaves other images alone",
    "G11": "`--compress`: a ZIP file of one member, without another save",
    "G12": "The ZIP file loads into an engine, and is stored in Keep as the canonical archive",
    "G13": "A file of the image in another format is refused, and nothing changes",
    "G14": "An image that the engine has not is an error, and nothing changes",
    "G15": "An interrupted save leaves no file; the next run completes it",
    "G16": "`folder config`: what a server of the folder offers, as JSON",
    "G17": "`folder verify` finds a renamed archive",
    "G18": "Building an image gives its ID; a failure the end of the log",
    "G19": "An engine that hangs is an error in time; it is asked only when it is needed",
    "G20": "A released version keeps its image unless forced; a dirty one is refreshed",
}

#: A cache of images with copies to carry along, and images out of them again (docs/spec/wfexs.md).
CACHE = {
    "W1": "Names are taken apart rightly, also those with ports, and with tag and digest",
    "W2": "All spellings of a name are one name",
    "W3": "A new entry: one content named by its SHA-256, one metadata file, one relative link a name",
    "W4": "File names as CWL and Nextflow look for them; several names of one content",
    "W5": "Metadata: image ID, digest of the archive, record of the image, its signature without volatile keys",
    "W6": "What is not exactly right is not trusted, and nothing is raised",
    "W7": "A flipped byte is found by `verify`, and never handed out",
    "W8": "A hard link on the same file system, a copy on another; what is there stays unless forced",
    "W9": "Content goes with its last name, not before",
    "W10": "A name that gets other content: the old one goes, if nothing else names it",
    "W11": "The same image gives the same archive, compressed or not",
    "W12": "Staging cold: pull, inspect, save; the record of what was staged",
    "W13": "Staging again: no pull and no save; offline no engine command at all",
    "W14": "Offline and not there: an error that names the image, and nothing is fetched",
    "W15": "`--force` fetches again; with `--offline` nothing is overwritten",
    "W16": "A known digest is pulled first; if that fails the tag, with a warning",
    "W17": "Several spellings are staged once; one error names all that are missing",
    "W18": "Deploying loads what the engine has not, and says so; the second time nothing",
    "W19": "An altered copy is refused before anything is loaded",
    "W20": "Archives in gzip, xz, ZIP, or as they are: the engine gets exactly the right bytes",
    "W21": "An image that is given with its path is staged, not pulled",
    "W22": "Which engines take which images; `none` does nothing and says so",
    "W23": "An engine's version and platform, and a clear error where it is missing",
    "W24": "A store of Podman's own, as root too",
    "W25": "Of two processes that stage one image, one fetches it",
    "W26": "From an OCI layout through archive, cache and load into Podman, with the same ID",
}

#: Images out of repositories, by repo2docker (docs/spec/repo2docker.md).
REPO2DOCKER = {
    "R1": "repo2docker lists the engine, and loads it without any credentials",
    "R2": "`repo2docker --engine keep --push`: a collection with both links; the last line names it and its hash",
    "R3": "Without `--push` nothing is written to Keep",
    "R4": "Pushed again: nothing is uploaded, the same collection",
    "R5": "An image that the engine has already is pushed too",
    "R6": "The project of the settings owns collection and links",
    "R7": "A failure of Keep: its text, exit code 1, no half links",
    "R8": "A build that fails: its text, and nothing uploaded",
    "R9": "Looking at images: names without `localhost/`, `WorkingDir` always, None for what is not there",
    "R10": "repo2docker of before 2025.8: `images`, and `push` as strings",
    "R11": "All that a build is told reaches the engine; a context in a tar stays within its folder",
    "R12": "Pushing and loading at the same time: both happen",
    "R13": "Lines come as they are produced, each with its end; progress that replaces itself is kept apart",
    "R14": "Credentials for a registry: checked, and for one build alone; in no argument, variable or configuration",
    "R15": "Containers: logs, exit code, status, stop, kill, remove",
    "R16": "Where nothing is built, the engine is not even made",
    "R17": "Nothing is remembered between two objects of the engine",
    "R18": "repo2docker's labels become properties of the collection, if asked for and allowed",
}

#: Pushing to registries, and telling when an image can be used.
REGISTRIES = {
    "H1": "The name of a push holds the image's ID: the same image has the same name, another image another",
    "H2": "Untagged names, ports, digests and bare IDs give a legal tag; a long one is cut and keeps the ID",
    "H3": "A name that is given is used as it is",
    "H4": "An image that is not there is an error before anything is asked of the registry",
    "H5": "A missing repository is created once, before the push; one that may not be is an error that says so",
    "H6": "What was pushed can be had by the name that was printed, and its config is the image",
    "H7": "`--quiet` shows nothing but the name, on standard output; otherwise progress goes to standard error",
    "H8": "A token that expires is renewed before; one that is refused once; refused again is an error",
    "H9": "A fresh token is used again",
    "H10": "No secret in arguments, children's environments, logs, errors, or anybody's configuration",
    "H11": "A name is an argument, never a part of a shell's command",
    "H12": "Lists of images and repositories, over several pages",
    "H13": "The status of an image: ready, pending, absent, each with its exit code",
    "H14": "`--wait` asks until the image is ready, less and less often; out of time has its own exit code",
    "H15": "Deleted is gone; deleted again is no; a registry that allows none is an error that says so",
    "H16": "A push leaves no name behind in the engine, also when it fails",
    "H17": "Registries with name and password, with bearer tokens, and for everybody",
    "H18": "Each step that fails is named, with the words of who refused it",
    "H19": "The same question of Keep: ready, or shadowed by another collection",
    "H20": "An additional name in Keep that can never mean another image",
}

#: What has no test yet, or only in part, and why.
OPEN: dict[str, str] = {}

SECTIONS: Mapping[str, Mapping[str, str]] = {
    "In the place of arv-keepdocker": KEEPDOCKER,
    "Where arv-keepdocker fails": SHORTCOMINGS,
    "A folder of image archives": FOLDER,
    "Cached and staged images": CACHE,
    "repo2docker": REPO2DOCKER,
    "Registries": REGISTRIES,
}

_HEAD = """\
# What is shown by which test

Made by `python -m tests.conformance` from the markers of the tests; a test holds that it is current.
"""


def page() -> str:
    """The text of `docs/conformance.md`."""
    shown = shown_by()
    lines = [_HEAD]
    for title, statements in SECTIONS.items():
        lines += [f"## {title}\n", "| # | | tests |", "|---|---|---|"]
        for number, statement in statements.items():
            tests = [f"`{test}`" for test in shown.get(number, [])]
            still = [f"*open: {OPEN[number]}*"] if number in OPEN else []
            lines.append(f'| <a id="{number.lower()}"></a>{number} | {statement} | {"<br>".join(tests + still)} |')
        lines.append("")
    return "\n".join(lines)


def shown_by() -> dict[str, list[str]]:
    """The tests that carry each statement's number, in order of file and name."""
    found = defaultdict(list)
    for path in sorted((TOP / "tests").rglob("test_*.py")):
        for name, numbers in marked(ast.parse(path.read_text())):
            for number in numbers:
                found[number].append(f"{path.relative_to(TOP)}::{name}")
    return dict(found)


def marked(module: ast.Module) -> Iterator[tuple[str, list[str]]]:
    """Each test function with the numbers in its marker."""
    for node in module.body:
        if isinstance(node, ast.FunctionDef):
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.conforms":
                    yield node.name, [ast.literal_eval(argument) for argument in decorator.args]


def known(number: str) -> bool:
    """Whether there is such a statement."""
    return any(number in statements for statements in SECTIONS.values())


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.stdout.write(f"{PAGE.relative_to(TOP)} written\n")
