# SPDX-License-Identifier: Apache-2.0
"""`arv_docker.keepdocker` has the names of the installed `arvados.commands.keepdocker`, and they do the same."""

from __future__ import annotations

import argparse
import inspect
import io
import json
import logging
import os
import signal
import stat
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import arvados
import arvados.commands.keepdocker as upstream
import pytest

from arv_docker import cli
from arv_docker.arvados.catalog.link_classes import HASH, REPO_TAG
from arv_docker.arvados.client import Cluster
from arv_docker.compat import keepdocker
from arv_docker.model import manifest_text
from arv_docker.site import LocalSite

from ..archives import classic, files_of, flat, hybrid, image, several
from ..arvados.fake_api import ME, OTHER, PROJECT, FakeApi
from ..transports.fake_engine import FakeEngine

APP = image(files_of(b"app"), os="linux", created="2024-01-02T03:04:05Z")
IDS = [f"sha256:{digit * 64}" for digit in "abcdef"]

# -- the names --------------------------------------------------------------------------


def own_names(module: ModuleType) -> dict[str, object]:
    """Functions and classes made in the module, and its constants; not what it imports."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not isinstance(value, ModuleType)
        and (not callable(value) or value.__module__ == module.__name__)
        and name not in vars(stat)
    }


def signature(value: object) -> str:
    if isinstance(value, argparse.ArgumentParser):
        return " ".join(option for action in value._actions for option in action.option_strings)
    if inspect.isclass(value):
        return ", ".join(getattr(value, "_fields", (value.__mro__[1].__name__,)))
    if callable(value):
        return f"({', '.join(inspect.signature(value).parameters)})"
    return type(value).__name__ if not isinstance(value, tuple) else ", ".join(it.__name__ for it in value)


def covers(ours: object, theirs: object) -> bool:
    """Whether whatever a program does with the one it can do with the other."""
    if isinstance(theirs, argparse.ArgumentParser):
        return set(signature(theirs).split()) <= set(signature(ours).split())
    if inspect.isclass(theirs):
        fields = getattr(ours, "_fields", None) == getattr(theirs, "_fields", None)
        return fields and inspect.isclass(ours) and issubclass(ours, theirs.__mro__[1])
    if callable(theirs):
        assert callable(ours)
        return _takes_all(inspect.signature(ours), inspect.signature(theirs))
    if isinstance(theirs, tuple):  # of exceptions
        return isinstance(ours, tuple) and set(ours) == set(theirs)
    if isinstance(theirs, logging.Logger):
        return isinstance(ours, logging.Logger) and ours.name == theirs.name
    return ours == theirs


def _takes_all(ours: inspect.Signature, theirs: inspect.Signature) -> bool:
    here, there = list(ours.parameters.values()), list(theirs.parameters.values())
    empty = inspect.Parameter.empty
    for own, other in zip(here, there, strict=False):
        same_default = (own.default is empty) == (other.default is empty) and (
            own.default == other.default or callable(other.default) or hasattr(other.default, "write")
        )
        if (own.name, own.kind) != (other.name, other.kind) or not same_default:
            return False
    return len(here) >= len(there) and all(it.default is not empty for it in here[len(there) :])


@pytest.mark.conforms("K23")
def test_every_name_of_the_original_is_here() -> None:
    names = own_names(upstream)
    table = {name: (value, getattr(keepdocker, name, None)) for name, value in sorted(names.items())}
    assert len(table) >= 25
    print(f"{'name':26} {'original':60} here")  # noqa: T201 - shown with -s
    for name, (theirs, ours) in table.items():
        verdict = "missing" if ours is None else "ok" if covers(ours, theirs) else signature(ours)
        print(f"{name:26} {signature(theirs):60.60} {verdict}")  # noqa: T201 - shown with -s
    assert [name for name, (theirs, ours) in table.items() if ours is None or not covers(ours, theirs)] == []


def test_the_comparison_notices_what_is_missing() -> None:
    assert not covers(keepdocker.pull_image, upstream.main)
    assert not covers(keepdocker.main, upstream.make_link)
    assert not covers(upstream.keepdocker_parser, keepdocker.keepdocker_parser)
    assert not covers(ValueError, upstream.DockerImage)


def test_every_option_of_the_original_is_taken() -> None:
    for option in signature(upstream.arg_parser).split():
        assert option in signature(keepdocker.arg_parser).split()


# -- the listing, beside the original's -------------------------------------------------


def stored(api: Any, image_id: str, content: bytes = b"image", **attributes: object) -> str:
    """A collection with an image's file, on a site."""
    text = manifest_text.single_file(f"{image_id}.tar", len(content), [api.keep.put(content, copies=1)])
    body = {"manifest_text": text, **attributes}
    return str(api.collections().create(body=body, ensure_unique_name=True).execute()["uuid"])


def linked(api: Any, head: str, link_class: str, name: str, made: object = None, **attributes: object) -> None:
    properties = {} if made is None else {"image_timestamp": made}
    body = {"head_uuid": head, "link_class": link_class, "name": name, "properties": properties, **attributes}
    api.links().create(body=body).execute()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, str]]:
    """A site with images of several names, without name, without hash, gone, of a project; and that project."""
    with LocalSite(tmp_path_factory.mktemp("library") / "site") as site:
        api = arvados.api("v1", discoveryServiceUrl=site.discovery_url, token=site.token)
        project = api.groups().create(body={"group_class": "project", "name": "p"}).execute()["uuid"]
        for number, image_id in enumerate(IDS[:3]):
            head = stored(api, image_id)
            linked(api, head, HASH, image_id, f"2024-0{number + 1}-01T00:00:00Z")
            linked(api, head, REPO_TAG, "app:1", f"2024-0{number + 1}-01T00:00:00Z")
            linked(api, head, REPO_TAG, f"lib/app:{number}", f"2024-0{number + 1}-01T00:00:00.25Z")
        linked(api, stored(api, IDS[3]), HASH, IDS[3])
        linked(api, stored(api, IDS[4]), REPO_TAG, "orphan:latest", "2020-01-01T00:00:00Z")
        gone = stored(api, IDS[5])
        linked(api, gone, HASH, IDS[5])
        linked(api, gone, REPO_TAG, "gone:1")
        api.collections().delete(uuid=gone).execute()
        owned = stored(api, IDS[0], owner_uuid=project)
        linked(api, owned, HASH, IDS[0], "2024-01-01T00:00:00Z", owner_uuid=project)
        linked(api, owned, REPO_TAG, "app:1", "2024-01-01T00:00:00Z", owner_uuid=project)
        linked(api, owned, REPO_TAG, "host.example:5000/app:1", owner_uuid=project)
        yield api, project


SEARCHES: list[tuple[str | None, ...]] = [
    (None, None),
    ("app", "1"),
    ("app", None),
    ("lib/app", "2"),
    ("orphan", None),
    ("gone", "1"),
    ("nothing", "1"),
    ("host.example:5000/app", "1"),
    (IDS[0], None),
    (IDS[0][:12], None),
    (IDS[3], None),
    ("sha256:eee", None),
    ("host", "5000/app"),
    ("", ""),
]


@pytest.mark.conforms("K18", "K16")
@pytest.mark.parametrize("project", [False, True])
@pytest.mark.parametrize(("name", "tag"), SEARCHES)
def test_the_listing_is_the_original_s(
    library: tuple[Any, str], name: str | None, tag: str | None, project: bool
) -> None:
    api, uuid = library
    arguments = (api, 3, name, tag, uuid if project else None)
    expected = upstream.list_images_in_arv(*arguments)
    for _, row in expected:  # which the original does not know without a link; the file says it
        row["dockerhash"] = IDS[4] if row["repo"] == "orphan" else row["dockerhash"]
    assert keepdocker.list_images_in_arv(*arguments) == expected


@pytest.mark.conforms("K18", "K11")
def test_an_id_without_sha256_is_found_too(library: tuple[Any, str]) -> None:
    """The original looks for `aaaa%`, and version 2 images begin with `sha256:`."""
    api, _ = library
    found = keepdocker.list_images_in_arv(api, 3, IDS[0].removeprefix("sha256:")[:12])
    assert {it["dockerhash"] for _, it in found} == {IDS[0]}
    assert len(found) == 4
    # How arvados-cwl-runner, which splits at each colon, asks for sha256:aaaa…
    assert keepdocker.list_images_in_arv(api, 3, "sha256", IDS[0].removeprefix("sha256:")) == found


@pytest.mark.conforms("S1", "K11")
@pytest.mark.parametrize(
    ("name", "tag"),
    [("sha256", "9" * 64), (f"sha256:{'9' * 64}", None), ("sha256", "latest"), ("sha256:xyz", None), ("sha", None)],
)
def test_an_unknown_id_is_no_image(library: tuple[Any, str], name: str, tag: str | None) -> None:
    api, _ = library
    assert keepdocker.list_images_in_arv(api, 3, name, tag) == []


@pytest.mark.conforms("K18")
def test_the_tag_that_a_launcher_lost_is_not_guessed() -> None:
    """`host:5000/app:1`, split at its first colon and cut."""
    api = FakeApi()
    api.link(api.image(), REPO_TAG, "host:5000/app:1")
    api.link(api.image(b"2"), REPO_TAG, "host:5000/app:latest")
    assert keepdocker.list_images_in_arv(api, 3, "host", "5000/app") == []
    assert len(keepdocker.list_images_in_arv(api, 3, "host:5000/app", "1")) == 1


@pytest.mark.parametrize(
    "text", ["", "a b", "Upper", "a:b:c", "@", "sha256:", "ü", "a" * 300, "/", "-", "\0", "%", "_"]
)
def test_no_name_makes_the_listing_raise(text: str) -> None:
    api = FakeApi()
    for name, tag in ((text or "x", None), ("app", text), (text or "x", text)):
        assert keepdocker.list_images_in_arv(api, 3, name, tag) == []


#: What a server can hold: it checks nothing of a link but its owner.
ODD_LINKS: list[dict[str, Any]] = [
    {"properties": {"image_timestamp": None}},
    {"properties": {"image_timestamp": 5}},
    {"properties": {"image_timestamp": ["2024"]}},
    {"properties": {"image_timestamp": "0001-01-01T00:00:00+14:00"}},
    {"properties": {"image_timestamp": "9999-12-31T23:59:59-14:00"}},
    {"properties": None},
    {"created_at": None},
    {"created_at": "soon"},
    {"name": None},
    {"name": ""},
    {"name": ":"},
    {"name": "no tag"},
    {"name": "ü\n:1"},
    {"head_uuid": None},
    {"head_uuid": ""},
    {"head_uuid": "d41d8cd98f00b204e9800998ecf8427e+0"},
    {"head_uuid": "yyyyy-4zz18-000000000000000"},
    {"head_uuid": "zzzzz-j7d0g-000000000000000"},
    {"owner_uuid": None, "modified_by_user_uuid": None},
]


@pytest.mark.conforms("K16", "K18")
@pytest.mark.parametrize("odd", ODD_LINKS, ids=json.dumps)
def test_no_link_makes_the_listing_raise(odd: dict[str, Any]) -> None:
    api = FakeApi()
    head = api.image()
    for link_class in (HASH, REPO_TAG):
        api.add("links", **{"head_uuid": head["uuid"], "link_class": link_class, "name": "odd:1", **odd})
        record = api.link(head, link_class, {HASH: IDS[0], REPO_TAG: "app:1"}[link_class])
        assert len(keepdocker.docker_link_sort_key({**record, **odd})) == 2
    found = keepdocker.list_images_in_arv(api, 3)
    assert "app" in {it["repo"] for _, it in found}
    assert {uuid for uuid, _ in found} == {head["uuid"]}
    assert keepdocker.list_images_in_arv(api, 3, "app", "1")
    for _, it in found:
        assert set(it) == {"_sort_key", "timestamp", "collection", "dockerhash", "repo", "tag"}
        assert it["timestamp"].strftime("%c")


def test_heads_that_are_no_collections_of_this_cluster_are_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server answers such a list with nothing at all, or with 404
    (docs/spec/arvados-api.md#foreign-uuids)."""
    api = FakeApi()
    head = api.image()["uuid"]
    asked: list[str] = []
    collections = Cluster.collections

    def spied(self: Cluster, filters: Any, **options: Any) -> Any:
        asked.extend(filters[0][2])
        return collections(self, filters, **options)

    monkeypatch.setattr(Cluster, "collections", spied)
    for it in (head, "", "text", "yyyyy-4zz18-000000000000000", "d41d8cd98f00b204e9800998ecf8427e+0"):
        api.add("links", head_uuid=it, link_class=REPO_TAG, name="app:1")
    assert [uuid for uuid, _ in keepdocker.list_images_in_arv(api, 3, "app", "1")] == [head]
    assert set(asked) == {head}


@pytest.mark.parametrize("made", [None, "2024-01-01T00:00:00Z", "2024-01-01T00:00:00.123456789Z", "garbage", ""])
def test_the_rank_of_a_link_is_the_original_s(made: str | None) -> None:
    properties = {} if made is None else {"image_timestamp": made}
    link = {"properties": properties, "created_at": "2024-02-01T00:00:00.123456000Z"}
    assert keepdocker.docker_link_sort_key(link) == upstream.docker_link_sort_key(link)


@pytest.mark.conforms("K16")
def test_a_rank_counts_the_offset() -> None:
    def key(made: str) -> Any:
        return keepdocker.docker_link_sort_key({"properties": {"image_timestamp": made}, "created_at": "2024-01-01"})

    assert key("2024-01-01T05:00:00+05:00")[0] == key("2024-01-01T00:00:00Z")[0]


def test_items_owned_by_and_make_link() -> None:
    api = FakeApi()
    made = keepdocker.make_link(api, 3, HASH, IDS[0], head_uuid="head", properties={"image_timestamp": "x"})
    assert (made["link_class"], made["name"], made["head_uuid"]) == (HASH, IDS[0], "head")
    keepdocker.make_link(api, 3, HASH, IDS[1], owner_uuid=OTHER)
    records = api.records["links"].values()
    assert list(keepdocker.items_owned_by(ME, records)) == [made]


# -- main -------------------------------------------------------------------------------


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    engine = FakeEngine(APP)
    monkeypatch.setattr(cli, "engine", lambda args: engine)
    return engine


def outcome(*arguments: str, api: Any) -> tuple[object, str, str]:
    """Exit code, standard output and standard error of `main`."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    try:
        keepdocker.main(list(arguments), stdout=out, stderr=err, install_sig_handlers=False, api=api)
    except SystemExit as ended:
        code = ended.code
    return code, out.getvalue(), err.getvalue()


@pytest.mark.conforms("S12", "K3")
@pytest.mark.usefixtures("engine")
def test_main_uses_the_client_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARVADOS_API_HOST", "192.0.2.1")
    monkeypatch.setenv("ARVADOS_API_TOKEN", "of another cluster")
    api = FakeApi()
    code, out, _ = outcome("app", "1", api=api)
    (uuid,) = api.records["collections"]
    assert (code, out) == (0, f"{uuid}\n")
    assert api.keep.blocks


@pytest.mark.usefixtures("engine")
def test_main_returns_after_an_upload_and_ends_the_program_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the original; but for ``arv keep docker`` of later SDKs, which says that main failed when it returns."""
    api = FakeApi()
    keepdocker.main(["app:1"], stdout=io.StringIO(), stderr=io.StringIO(), install_sig_handlers=False, api=api)
    for arguments in (["app:1"], ["app:1", "--project-uuid", PROJECT], ["images"]):
        with pytest.raises(SystemExit) as ended:
            keepdocker.main(arguments, stdout=io.StringIO(), stderr=io.StringIO(), install_sig_handlers=False, api=api)
        assert not ended.value.code
    monkeypatch.setattr(sys, "argv", ["arv keep docker"])
    with pytest.raises(SystemExit) as ended:
        keepdocker.main(
            ["app:1"], stdout=io.StringIO(), stderr=io.StringIO(), api=FakeApi(), install_sig_handlers=False
        )
    assert ended.value.code == 0


def test_the_parsers_of_later_sdks() -> None:
    """Functions in place of objects; the combined one takes the options of the one that it is given."""
    own = keepdocker.get_keepdocker_parser()
    own.add_argument("--ours", action="store_true")
    parsed = keepdocker.get_argument_parser(own).parse_args(["--ours", "--force", "--name", "n", "app", "1"])
    assert (parsed.ours, parsed.force, parsed.name, parsed.image, parsed.tag) == (True, True, "n", "app", "1")
    assert own.parse_known_args(["--force", "--retries", "3", "app"])[1] == ["--retries", "3", "app"]


@pytest.mark.conforms("K26", "K2", "S23")
@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["app:1", "2"], 1, "already says which image"),
        (["none:1"], 1, "no image"),
        (["host", "5000/app"], 1, "split it at its first colon and lost the tag"),
        (["app", "a b"], 1, "is not a tag"),
    ],
)
def test_main_ends_with_the_codes_of_the_original(arguments: Sequence[str], code: int, words: str) -> None:
    api = FakeApi()
    ended, out, err = outcome(*arguments, api=api)
    assert (ended, out) == (code, "")
    assert words in err
    assert api.records["collections"] == {}


@pytest.mark.usefixtures("engine")
def test_an_unknown_option_ends_with_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome("--nonsense", "app", api=FakeApi())[0] == 2
    assert "--nonsense" in capsys.readouterr().err


@pytest.mark.conforms("K1")
def test_main_lists(library: tuple[Any, str]) -> None:
    api, _ = library
    theirs = io.StringIO()
    with pytest.raises(SystemExit) as ended:
        upstream.main(["images"], stdout=theirs, api=api)
    assert ended.value.code == 0
    code, ours, _ = outcome("images", api=api)
    assert code == 0
    assert outcome(api=api)[1] == ours
    columns = ["REPOSITORY", "TAG", "IMAGE ID", "COLLECTION", "CREATED"]
    assert [column for column in columns if column in ours.splitlines()[0]] == columns

    def rows(text: str) -> list[list[str]]:
        lines = [line.split() for line in text.splitlines()[1:]]
        return [[*line[:2], *line[3:]] for line in lines]  # all but the ID, of which the original shows five digits

    assert rows(ours) == rows(theirs.getvalue())


@pytest.mark.usefixtures("engine")
def test_main_leaves_the_signals_of_a_program_alone_and_runs_in_any_thread() -> None:
    handler = signal.getsignal(signal.SIGTERM)
    codes: list[object] = []
    thread = threading.Thread(target=lambda: codes.append(outcome("app:1", api=FakeApi())[0]))
    thread.start()
    thread.join()
    assert codes == [0]
    assert signal.getsignal(signal.SIGTERM) is handler


def test_an_interruption_is_the_calling_program_s(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the original's: else Ctrl-C would be one failed image to a launcher, which goes on to the next."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "inspect", interrupted)
    with pytest.raises(KeyboardInterrupt):
        keepdocker.main(["app:1"], install_sig_handlers=False, api=FakeApi())


# -- the engine -------------------------------------------------------------------------


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a program called `docker` on PATH, given as a shell script."""

    def put(script: str) -> None:
        path = tmp_path / "bin" / "docker"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")

    return put


@pytest.mark.conforms("S21")
def test_a_command_that_says_much_does_not_stall(docker: Callable[[str], None]) -> None:
    docker("head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2")
    keepdocker.check_docker(keepdocker.popen_docker(["pull", "x"]), "pull")


@pytest.mark.conforms("S20")
def test_a_failure_has_the_engine_s_words(docker: Callable[[str], None]) -> None:
    docker("echo 'the registry is on fire' >&2; exit 3")
    with pytest.raises(keepdocker.DockerError, match=r"docker pull returned status code 3\..*on fire"):
        keepdocker.pull_image("app", "1")
    with pytest.raises(keepdocker.DockerError, match="on fire"):
        keepdocker.find_image_hashes("app", "1")
    with pytest.raises(keepdocker.DockerError, match="on fire"):
        list(keepdocker.docker_images())


def test_a_command_s_input_is_closed_and_its_output_can_be_closed(docker: Callable[[str], None]) -> None:
    docker("cat; echo end")
    process = keepdocker.popen_docker(["x"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.read() == b"end\n"
    process.stdout.close()
    keepdocker.check_docker(process, "x")


def test_no_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(keepdocker.DockerError, match="no Docker command"):
        keepdocker.popen_docker(["images"])


def test_images_of_the_engine(docker: Callable[[str], None]) -> None:
    line = {"Repository": "app", "Tag": "1", "ID": IDS[0], "CreatedSince": "2 weeks ago", "Size": "5MB"}
    inspected = [{"Id": IDS[0], "RepoTags": ["app:1"], "Os": "linux", "Architecture": "amd64"}]
    docker(
        f"""case "$1 $4 $3" in
images*) echo '{json.dumps(line)}';;
"image "*" app:1"|"image "*" {IDS[0]}") echo '{json.dumps(inspected)}';;
*) echo "Error: No such image: $3" >&2; exit 1;;
esac"""
    )
    assert list(keepdocker.docker_images()) == [
        keepdocker.DockerImage(repo="app", tag="1", hash=IDS[0], created="2 weeks ago", vsize="5MB")
    ]
    assert keepdocker.find_image_hashes("app", "1") == [IDS[0]]
    assert keepdocker.find_image_hashes("app:1") == [IDS[0]]
    assert keepdocker.find_one_image_hash("app", "1") == IDS[0]
    assert keepdocker.find_image_hashes("none", "1") == []
    with pytest.raises(keepdocker.DockerError, match="no matching image found"):
        keepdocker.find_one_image_hash("none", "1")
    assert keepdocker.docker_image_format(IDS[0]) == "v2"
    with pytest.raises(keepdocker.DockerError):
        keepdocker.docker_image_format("none:1")
    api = FakeApi()
    assert keepdocker.docker_image_compatible(api, IDS[0])
    api._rootDesc["dockerImageFormats"] = ["v1"]
    assert not keepdocker.docker_image_compatible(api, IDS[0])
    api._rootDesc.pop("dockerImageFormats")
    assert not keepdocker.docker_image_compatible(api, IDS[0])


# -- the cache, beside the original's ---------------------------------------------------


@pytest.mark.conforms("K13")
@pytest.mark.parametrize("saves", [keepdocker, upstream], ids=["saved here", "saved by the original"])
@pytest.mark.parametrize("reads", [keepdocker, upstream], ids=["read here", "read by the original"])
def test_each_reads_what_the_other_saved(saves: Any, reads: Any, docker: Callable[[str], None]) -> None:
    docker("echo the tarball")
    assert saves.get_cache_dir() == reads.get_cache_dir()
    file, need_save = saves.prep_image_file("x.tar")
    assert need_save
    with file:
        saves.save_image(IDS[0], file)
        assert saves.stat_cache_name(file) == reads.stat_cache_name(file.name) == f"{file.name}.stat"
    file, need_save = reads.prep_image_file("x.tar")
    with file:
        assert not need_save
        assert file.read() == b"the tarball\n"
    Path(file.name).write_bytes(b"changed since")
    file, need_save = reads.prep_image_file("x.tar")
    with file:
        assert need_save
        assert file.writable()
        assert file.read() == b""


@pytest.mark.parametrize("record", ["", "null", "[]", "[1]", "{}", '"text"', "[null,null,null,null,null,null,null]"])
def test_a_record_that_is_none_means_to_save(record: str) -> None:
    folder = Path(keepdocker.get_cache_dir())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (folder / "x.tar").write_bytes(b"x")
    (folder / "x.tar.stat").write_text(record)
    file, need_save = keepdocker.prep_image_file("x.tar")
    file.close()
    assert need_save


# -- archives ---------------------------------------------------------------------------


@pytest.mark.conforms("K19")
@pytest.mark.parametrize("form", [classic, hybrid, flat])
def test_the_metadata_of_an_archive_is_the_original_s(tmp_path: Path, form: Callable[[Any], bytes]) -> None:
    (tmp_path / "x.tar").write_bytes(form(APP))
    with (tmp_path / "x.tar").open("rb") as file:
        ours, theirs = keepdocker.load_image_metadata(file), upstream.load_image_metadata(file)
    assert ours[1] == theirs[1] == json.loads(APP.config)
    assert {key: theirs[0].get(key) for key in ("Config", "RepoTags", "Layers")} == ours[0]


@pytest.mark.conforms("K19")
def test_an_archive_without_exactly_one_image_is_a_value_error(tmp_path: Path) -> None:
    (tmp_path / "two.tar").write_bytes(several((APP, ["a:1"]), (image(files_of(b"b"), os="linux"), ["b:1"])))
    with tarfile.open(tmp_path / "none.tar", "w") as tar:
        member = tarfile.TarInfo("manifest.json")
        member.size = 2
        tar.addfile(member, io.BytesIO(b"[]"))
    for name in ("two.tar", "none.tar"):
        with (tmp_path / name).open("rb") as file:
            with pytest.raises(ValueError):
                upstream.load_image_metadata(file)
            with pytest.raises(ValueError):
                keepdocker.load_image_metadata(file)
