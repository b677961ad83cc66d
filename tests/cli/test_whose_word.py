# SPDX-License-Identifier: Apache-2.0
"""Another user of a site publishes false links of each kind; every verb against each kind (docs/spec/trust.md#verbs).

No verb writes a link of ours to his content, prints a line that he forged, or hands out his image for an ID of ours.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import arvados
import pytest

import arv_docker as product
from arv_docker import cli
from arv_docker.arvados.catalog.link_classes import DIGEST, HASH, MIGRATION, REPO_TAG
from arv_docker.arvados.client import Cluster
from arv_docker.cli.arv_docker import VERBS
from arv_docker.ingest.service import Ingest, Options
from arv_docker.local.progress import SilentProgress
from arv_docker.model import manifest_text
from arv_docker.model.reference import Reference
from arv_docker.site import LocalSite
from arv_docker.site.api import users
from arv_docker.site.folder import open_site

from ..archives import Image, classic, files_of, image, tar
from ..registry.conftest import registry
from ..registry.scripted import Registry
from ..transports.fake_engine import FakeEngine
from .conftest import Outcome, Run

__all__ = ["registry"]

OURS = image(files_of(b"ours"), os="linux", created="2024-01-02T03:04:05Z")
HIS = image(files_of(b"his"), os="linux", created="2024-01-02T03:04:05Z")
ID, HIS_ID = str(OURS.parsed.digest), str(HIS.parsed.digest)
LAYER_ID = str(OURS.parsed.diff_ids[0])
LATER = {"image_timestamp": "2031-01-01T00:00:00Z"}


@dataclass
class Setting:
    """A site with our image as ours:1, and the other user's, who has a project that everybody reads."""

    folder: Path
    me: str
    his: str
    head: dict[str, Any]
    his_head: dict[str, Any]
    api: Any
    his_api: Any
    project: str

    def publish(self, link_class: str, name: str, head: str, **more: Any) -> None:
        """A link of his."""
        body: dict[str, Any] = {"link_class": link_class, "name": name, "head_uuid": head, "owner_uuid": self.project}
        pdh = self.his_api.collections().get(uuid=head).execute()["portable_data_hash"]
        body |= {"tail_uuid": pdh, "properties": LATER}
        self.his_api.links().create(body=body | more).execute()

    def plant(self) -> str:
        """His image in a file that is named by our image's ID."""
        text = self.his_api.collections().get(uuid=self.his_head["uuid"]).execute()["manifest_text"].split()
        size = sum(int(token.split("+")[1]) for token in text[1:-1])
        body = {"manifest_text": manifest_text.single_file(f"{ID}.tar", size, text[1:-1]), "owner_uuid": self.project}
        return str(self.his_api.collections().create(body=body).execute()["uuid"])

    def links_of_ours_to_his_content(self) -> list[str]:
        """What must stay empty: our links whose head, or the content that they pin, is his."""
        his = {it["uuid"]: it["portable_data_hash"] for it in self._all("collections") if it["owner_uuid"] != self.me}
        return [
            it["uuid"]
            for it in self._all("links")
            if it["link_class"].startswith("docker_")
            and it["modified_by_user_uuid"] == self.me
            and (it["head_uuid"] in his or it["tail_uuid"] in his.values())
        ]

    def _all(self, resource: str) -> list[dict[str, Any]]:
        return list(getattr(self.api, resource)().list(limit=1000).execute()["items"])


def ingested(api: Any, made: Image, folder: Path, name: str, project: str | None = None) -> dict[str, Any]:
    """The collection of an image that a user put into Keep."""
    (folder / "image.tar").write_bytes(classic(made))
    ingest = Ingest(Cluster(api), Options(folder, project=project), SilentProgress())
    uuid = ingest.from_archive(folder / "image.tar", Reference.parse(name)).uuid
    return dict(api.collections().get(uuid=uuid).execute())


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Setting]:
    monkeypatch.setattr(cli, "engine", lambda args: FakeEngine())
    folder = tmp_path / "site"
    site = open_site(folder)
    users.create(site.database, site.settings, "me", is_admin=False)
    users.create(site.database, site.settings, "mallory", is_admin=False)
    tokens = [users.new_token(site.database, site.settings, name, None) for name in ("me", "mallory")]
    site.close()
    with LocalSite(folder) as running, ExitStack() as stack:
        api, his_api = (
            arvados.api("v1", discoveryServiceUrl=running.discovery_url, token=token, cache=False) for token in tokens
        )
        me, his = (it.users().current().execute()["uuid"] for it in (api, his_api))
        project = his_api.groups().create(body={"group_class": "project", "name": "free"}).execute()["uuid"]
        permission = {"link_class": "permission", "name": "can_read", "head_uuid": project}
        his_api.links().create(body=permission | {"tail_uuid": f"{project[:5]}-j7d0g-fffffffffffffff"}).execute()
        head = ingested(api, OURS, tmp_path, "ours:1")
        his_head = ingested(his_api, HIS, tmp_path, "his:1", project)
        monkeypatch.setattr(cli, "cluster", lambda args: _as(api))
        stack.enter_context(others(monkeypatch, tmp_path / "other", api))
        yield Setting(folder, me, his, head, his_head, api, his_api, project)


@contextmanager
def others(monkeypatch: pytest.MonkeyPatch, folder: Path, api: Any) -> Iterator[None]:
    """A site of ours as the cluster that `keep:other/` means."""
    with LocalSite(folder) as site:
        other = arvados.api("v1", discoveryServiceUrl=site.discovery_url, token=site.token, cache=False)
        monkeypatch.setattr(cli, "cluster_named", lambda args, name: _as(other if name == "other" else api))
        yield


class _as:
    def __init__(self, api: Any) -> None:
        self._cluster = Cluster(api, retries=0)

    def __enter__(self) -> Cluster:
        return self._cluster

    def __exit__(self, *_: object) -> None:
        pass


Lie = Callable[[Setting], None]

#: The kinds of false links about our image.
LIES: dict[str, Lie] = {
    "our ID to his image": lambda it: it.publish(HASH, ID, it.his_head["uuid"]),
    "our ID to a file named by it": lambda it: it.publish(HASH, ID, it.plant()),
    "our ID as a further digest of his": lambda it: it.publish(DIGEST, ID, it.his_head["uuid"]),
    "our ID as a name": lambda it: it.publish(REPO_TAG, f"{ID[7:19]}:latest", it.his_head["uuid"]),
    "our ID in a name": lambda it: it.publish(REPO_TAG, f"ours@{ID}", it.his_head["uuid"]),
    "our layer in his collection": lambda it: it.publish("docker_image_layer", LAYER_ID, it.his_head["uuid"]),
    "our content migrated to his": lambda it: it.publish(
        MIGRATION, "x", it.his_head["uuid"], tail_uuid=it.head["portable_data_hash"]
    ),
}

#: Verbs that ask for no link of an image.
WITHOUT_LINKS = {"build", "deploy", "folder", "cache", "doctor", "completion", "install-command", "site"}

#: Takes names as `stage` does, and needs Apptainer: tests/cli/test_sif.py.
LIKE_STAGE = {"sif"}

#: What the page says of each verb: for an ID of ours, for a name that he alone gave, for a name of ours.
PAGE = Path(__file__).parents[2] / "docs" / "spec" / "trust.md"
ROW = re.compile(r"^\| (`.*?) \| (.*?) \| (.*?) \| (.*?) \|$", re.MULTILINE)
EXPECTED = {
    row[1]: row.groups()[1:] for row in ROW.finditer(PAGE.read_text().partition("## Verbs")[2].partition("\n## ")[0])
}


def verbs(text: str, registry_host: str, tmp: Path) -> dict[str, tuple[str, ...]]:
    """Every verb that asks a cluster for an image, by what the page calls it."""
    tmp.mkdir(exist_ok=True)
    (tmp / "ours.tar").write_bytes(classic(OURS))
    return {
        "`ingest` of what no engine has": ("ingest", text),
        "`ingest --dry-run`": ("ingest", "--dry-run", text),
        "`resolve`": ("resolve", text),
        "`resolve --explain`": ("resolve", "--explain", text),
        "`inspect`": ("inspect", text),
        "`ls`": ("ls", text),
        "`cat`": ("cat", text, "/file"),
        "`diff`": ("diff", text, f"docker-archive:{tmp / 'ours.tar'}"),
        "`export`": ("export", text),
        "`verify`": ("verify", text),
        "`load`": ("load", text),
        "`stage`": ("stage", "--json", "--from", "keep", "--dir", str(tmp / "staged"), text),
        "`images NAME`": ("images", text),
        "`link`": ("link", text, "linked:1"),
        "`tag`": ("tag", text, "tagged:1"),
        "`copy` to a file": ("copy", f"keep:{text}", f"docker-archive:{tmp / 'out.tar'}"),
        "`copy` to a cluster": ("copy", "--json", f"keep:{text}", "keep:other/"),
        "`copy --all`": ("copy", "--json", "--all", "keep:", "keep:other/"),
        "`registry push`": ("registry", "push", "--insecure", registry_host, f"keep:{text}"),
        "`status`": ("status", text),
        "`untag`": ("untag", text),
        "`arv-keepdocker` of what no engine has": ("arv-keepdocker", text),
    }


def markers(setting: Setting, verb: str, outcome: Outcome) -> tuple[bool, bool]:
    """Whether the outcome shows our image, and whether it shows his."""
    if verb in ("`cat`", "`export`"):
        return "ours" in outcome.out, "his" in outcome.out
    if verb == "`ls`":
        return " 4 1970" in outcome.out, " 3 1970" in outcome.out
    if verb == "`diff`":
        return outcome.out == "", "/file" in outcome.out
    one, two = (
        (head["uuid"], head["portable_data_hash"], image_id, f"1-{image_id[7:17]}", image_id[7:19])
        for head, image_id in ((setting.head, ID), (setting.his_head, HIS_ID))
    )
    return any(it in outcome.out for it in one), any(it in outcome.out for it in two)


def check(expected: str, setting: Setting, verb: str, outcome: Outcome) -> None:
    """Raise AssertionError unless the verb ended as the page says."""
    ours, his = markers(setting, verb, outcome)
    warned = "warning: " in outcome.err and setting.his in outcome.err
    if expected in ("ours", "ours, with a warning"):
        assert (outcome.code, ours, his) == (0, True, False), (verb, outcome)
        assert "with" not in expected or "still means" in outcome.err, (verb, outcome)
    elif expected == "his, with a warning":
        assert (outcome.code, his, warned) == (0, True, True), (verb, outcome)
    elif expected == "listed":
        assert (outcome.code, warned or not his) == (0, True), (verb, outcome)
    elif expected.startswith("ours alone"):
        copied = [it["image_id"] for it in json.loads(outcome.out) if "image_id" in it]
        status = 8 if expected.endswith("(8)") else 0
        assert (outcome.code, copied) == (status, [ID]), (verb, outcome)
    else:
        word, _, code = expected.removesuffix(")").partition(" (")
        assert outcome.code == int(code), (verb, outcome)
        assert word == "refused" or outcome.out.startswith(word), (verb, outcome)
        assert word != "refused" or not his, (verb, outcome)


def test_the_page_has_every_verb() -> None:
    named = {re.split(r"[` ]", name)[1] for name in EXPECTED} - {"get_image", "arv-keepdocker"}
    assert named | WITHOUT_LINKS | LIKE_STAGE == set(VERBS)
    assert named.isdisjoint(WITHOUT_LINKS)
    assert set(EXPECTED) == {*verbs("x", "x", Path("/dev/shm")), "`get_image`"}


@pytest.mark.parametrize("lie", LIES)
def test_no_verb_takes_his_image_for_an_id_of_ours(
    setting: Setting, run: Run, registry: Registry, tmp_path: Path, lie: str
) -> None:
    LIES[lie](setting)
    for number, text in enumerate((ID, ID[7:19], f"ours@{ID}")):
        for verb, words in verbs(text, registry.host, tmp_path / str(number)).items():
            if text == ID or EXPECTED[verb][0] == "ours":
                check(EXPECTED[verb][0], setting, verb, run(*words))
        record = product.get_image(setting.api, text)
        assert (record.uuid, str(record.image_id), record.trusted) == (setting.head["uuid"], ID, True)
    assert setting.links_of_ours_to_his_content() == []


def test_a_name_of_his_is_read_with_a_warning_and_never_made_ours(
    setting: Setting, run: Run, registry: Registry, tmp_path: Path
) -> None:
    for verb, words in verbs("his:1", registry.host, tmp_path / "his").items():
        check(EXPECTED[verb][1], setting, verb, run(*words))
    record = product.get_image(setting.api, "his:1")
    assert (record.uuid, record.trusted, record.linked_by) == (setting.his_head["uuid"], False, setting.his)
    assert setting.links_of_ours_to_his_content() == []


def test_our_name_for_his_image_is_read_with_a_warning_and_never_made_ours(
    setting: Setting, run: Run, registry: Registry, tmp_path: Path
) -> None:
    setting.publish(REPO_TAG, "ours:1", setting.his_head["uuid"])
    for verb, words in verbs("ours:1", registry.host, tmp_path / "ours").items():
        check(EXPECTED[verb][2], setting, verb, run(*words))
    record = product.get_image(setting.api, "ours:1")
    assert (record.uuid, record.trusted, record.linked_by) == (setting.his_head["uuid"], False, setting.his)
    assert setting.links_of_ours_to_his_content() == []


def test_what_is_false_is_said(setting: Setting, run: Run) -> None:
    LIES["our ID to his image"](setting)
    for words in (("images",), ("resolve", "--explain", ID)):
        assert f"of {setting.his} is false: it calls {setting.his_head['uuid']}" in run(*words).err
    assert {it["image_id"] for it in json.loads(run("images", "--json").out)} == {ID, HIS_ID}
    assert json.loads(run("resolve", "--json", ID).out)["false_links"][0]["linked_by"] == setting.his


def test_strict_names_and_users_who_are_named(
    setting: Setting, run: Run, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = verbs("his:1", registry.host, tmp_path / "his")
    monkeypatch.setenv("ARV_DOCKER_NAMES", "trusted")
    for verb, words in every.items():
        if EXPECTED[verb][1] == "his, with a warning":
            assert run(*words).code == 1, verb
    monkeypatch.delenv("ARV_DOCKER_NAMES")
    monkeypatch.setenv("ARV_DOCKER_TRUSTED_WRITERS", setting.his)
    for verb in ("`link`", "`copy` to a file", "`copy` to a cluster", "`registry push`"):
        assert run(*every[verb]).code == 0, verb


# -- lines ---------------------------------------------------------------------------------

#: What a stranger's text may have in it: ends of lines, of whatever reader; what moves the cursor; what turns writing.
SIGNS = ("\n", "\r", "\r\n", "\x85", "\u2028", "\x0b", "\x1b[2K\x1b[1A", "\x9b2K", "\b", "\u202e", "\u2066", "\u200f")
FORGED = "forged"
EVIL = "".join(f"{sign}{FORGED}" for sign in SIGNS)
#: Signs that may never be printed; a line end only by us.
BAD = re.compile("[^\\n\\x20-\\x7e\\xa0-\\u200d\\u2010-\\u2027\\u202f-\\u2065\\u206a-\\U0010ffff]")
HOSTILE = image(
    tar({f"file{EVIL}": b"evil"}, form=tarfile.PAX_FORMAT),
    os=f"linux{EVIL}",
    architecture=f"amd64{EVIL}",
    created=f"2024-01-02T03:04:05Z{EVIL}",
    config={"Labels": {f"a{EVIL}": EVIL}, "Env": [f"A={EVIL}"], "Entrypoint": [EVIL], "User": EVIL},
    history=[{"created_by": EVIL}],
)


def check_lines(words: tuple[str, ...], outcome: Outcome) -> bool:
    """Raise AssertionError where a stranger's text begins a line or moves the cursor; say if it was printed at all."""
    printed = f"{outcome.out}\n{outcome.err}"
    assert not [line for line in printed.splitlines() if line.lstrip().startswith(FORGED)], (words, printed)
    assert not BAD.search(printed), (words, BAD.findall(printed), printed)
    return FORGED in printed


def test_no_verb_prints_a_line_that_a_stranger_forged(
    setting: Setting, run: Run, registry: Registry, tmp_path: Path
) -> None:
    evil = ingested(setting.his_api, HOSTILE, tmp_path, "evil:1", setting.project)
    for head in (setting.his_head["uuid"], evil["uuid"]):
        for name in (f"x:1{EVIL}", f"x{EVIL}:1", f"ours{EVIL}", EVIL, f"ours@{ID}{EVIL}"):
            setting.publish(REPO_TAG, name, head, properties={"image_timestamp": f"2031-01-01T00:00:00Z{EVIL}"})
        for name in (f"{ID}{EVIL}", EVIL, f"sha256:{EVIL}"):
            for link_class in (HASH, DIGEST):
                setting.publish(link_class, name, head, properties={"image_timestamp": EVIL})
        setting.publish(REPO_TAG, "evil:2", head, properties={"image_timestamp": EVIL})
    setting.his_api.collections().update(uuid=evil["uuid"], body={"name": f"name{EVIL}"}).execute()
    setting.his_api.groups().update(uuid=setting.project, body={"name": f"project{EVIL}"}).execute()
    tagged = tmp_path / "tagged.tar"
    tagged.write_bytes(classic(HOSTILE, tags=[f"x:1{EVIL}", f"y{EVIL}:1"]))
    texts = [ID, "evil:1", "evil:2", evil["uuid"], evil["portable_data_hash"], f"x:1{EVIL}", f"docker-archive:{tagged}"]
    texts += [f"docker-archive:{tagged}:nothing:1", f"oci-archive:{tagged}", "sha256:", ID[:9]]
    seen = 0
    for number, text in enumerate(texts):
        for verb, words in verbs(text, registry.host, tmp_path / str(number)).items():
            if verb in ("`cat`", "`export`"):
                continue  # bytes, as they are
            telling = ("--debug",) if words[0] != "arv-keepdocker" else ()
            seen += check_lines(words, run(*words, *telling))
    for words in (("images", "--wide"), ("arv-keepdocker", "images"), ("images", "--project-uuid", setting.project)):
        seen += check_lines(words, run(*words))
    assert seen > 20  # so that it was there to be printed
