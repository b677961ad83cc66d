# SPDX-License-Identifier: Apache-2.0
"""Situations that registries, mirrors, token servers and credential stores in the field put a client into.

Each is a scripted registry that deviates in one way, and a verb: pull, push, or tags.
"""

import base64
import gzip
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from arv_docker.model.image import OCI_INDEX
from arv_docker.model.manifest import machine_platform

from ..archives import Image, classic, image, layout, tar
from ..registry.scripted import Conversation, Registry, TokenConversation, TokenServer, index, sha256
from .engines import noise
from .peers import Home, Peer, Run, config_with_store

Fault = Callable[[Conversation], bool]

PLATFORM = machine_platform()


@dataclass
class Scene:
    """What one client meets in one situation: a registry, another host, a token server, a home, and an image."""

    image: Image
    home: Home
    registry: Registry = field(default_factory=Registry)
    other: Registry = field(default_factory=Registry)
    tokens: TokenServer = field(default_factory=TokenServer)
    reference: str = ""
    asked: int = 0
    #: How often a fault took a request.
    met: int = 0
    marks: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reference = self.reference or f"{self.registry.host}/tools/app:1"

    def add(self) -> str:
        """Have the registry hold the image; gives the digest of its manifest."""
        return self.registry.add("tools/app:1", self.image)

    @property
    def manifest(self) -> bytes:
        """The image's manifest."""
        return self.registry.manifests["tools/app", "1"][1]


Judge = Callable[[Scene, Run], str]


@dataclass(frozen=True)
class Situation:
    """One situation, what it is called in the table, and the verb that is tried in it, some times in a row.

    `prepare` makes it of a scene, and `judge` says what came of it. `size` is that of the image's one large layer.
    """

    title: str
    verb: str
    prepare: Callable[[Scene], None]
    judge: Judge = lambda scene, run: run.verdict
    times: int = 1
    seconds: float = 60
    size: int = 300_000
    needs: str = ""


def image_for(number: int, size: int) -> Image:
    """An image that no other situation has a layer of: what an engine knows, it does not fetch."""
    layers = tar({"data": noise(size + number)[number:]}), tar({"number": b"%d" % number})
    return image(*layers, os=PLATFORM.os, architecture=PLATFORM.architecture, config={}, history=[{}, {}])


def run(situation: Situation, number: int, peer: Peer) -> str:
    """The cell of the table: what a client does in the situation; a dash where it has nothing of the kind."""
    if situation.needs and not getattr(peer, situation.needs):
        return "–"
    folder = peer.folder / f"home-{number}"
    folder.mkdir()
    scene = Scene(image_for(number, situation.size), Home(folder, seconds=situation.seconds))
    archive = folder / "app.tar"
    name = "peer/app:1"
    archive.write_bytes(layout(scene.image, name) if peer.pushes_oci else classic(scene.image, [name]))
    servers = (scene.registry, scene.other, scene.tokens)
    for server in servers:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        situation.prepare(scene)
        has_fault = _count_faults(scene)
        runs = []
        for _ in range(situation.times):
            scene.marks.append(len(scene.registry.seen))
            runs.append(_act(situation.verb, peer, scene, archive))
            print(f"{peer.name}: {situation.title}: {runs[-1]}")  # noqa: T201 - for whom the table differs
        last = runs[-1]
        if last is None:
            return "–"
        if has_fault:
            _wait_for(lambda: scene.met > 0)  # it is counted when its answer is on its way
        cell = situation.judge(scene, last)
        return cell if scene.met or not has_fault else f"{cell}, not met"
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def _count_faults(scene: Scene) -> bool:
    """Have each fault that takes a request be counted; False if the scene has none."""
    scenes: list[Any] = [scene.registry, scene.other, scene.tokens]
    faulty = [it for it in scenes if it.fault.__module__ == __name__]

    def counted(fault: Callable[[Any], bool]) -> Callable[[Any], bool]:
        def count(conversation: Any) -> bool:
            scene.met += conversation.server is scene.other  # where it is enough to have asked
            taken = fault(conversation)
            scene.met += bool(taken)
            return taken

        return count

    for server in faulty:
        server.fault = counted(server.fault)
    return bool(faulty)


def _wait_for(true: Callable[[], bool], seconds: float = 3) -> None:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)


def _act(verb: str, peer: Peer, scene: Scene, archive: Path) -> Run | None:
    if verb == "pull":
        return peer.pull(scene.reference, scene.home)
    if verb == "push":
        return peer.push(archive, scene.reference, scene.home)
    return peer.tags(scene.reference.rpartition(":")[0], scene.home)


# -- judges ------------------------------------------------------------------------------------


def with_count(scene: Scene, done: Run) -> str:
    """The verdict, and how often the host in trouble was asked."""
    return f"{done.verdict}, {scene.asked} request{'s' if scene.asked != 1 else ''}"


def says(pattern: str, otherwise: str = "without a word of that") -> Judge:
    """A judge of what an error says: failure is right here, and its words are what matters."""

    def judge(_: Scene, done: Run) -> str:
        return f"{done.verdict}, {'says so' if re.search(pattern, done.said, re.IGNORECASE) else otherwise}"

    return judge


def sent_again(scene: Scene, done: Run) -> str:
    """The verdict, and if the last push sent the layers again."""
    sent = sum(len(it.body) for it in scene.registry.seen[scene.marks[-1] :] if "/uploads/" in it.path)
    return f"{done.verdict}, {'sends all again' if sent > 10_000 else 'sends nothing'}"


def digest_told(scene: Scene, done: Run) -> str:
    """By which digest the image is said to be there."""
    if done.status != 0:
        return "refuses"
    told = re.findall(r"sha256:[0-9a-f]{64}", done.said)
    digests = {name for _, name in scene.registry.manifests}
    theirs = [it for it in told if it in digests]
    if theirs:
        return "tells the registry's"
    return "tells one that the registry lacks" if re.search(r"digest: sha256", done.said) else "tells none"


def hidden(_: Scene, done: Run) -> str:
    """If a password is shown."""
    return "shows the password" if "Hunter2" in done.said else "hides it"


def lists(*names: str) -> Judge:
    """A judge of a list: all of these names have to be in it."""

    def judge(_: Scene, done: Run) -> str:
        missing = [name for name in names if name not in done.said]
        return "lists a part" if missing and done.status == 0 else done.verdict

    return judge


# -- token servers and credentials -------------------------------------------------------------


def busy_tokens(times: int) -> Callable[[Scene], None]:
    """A token server that answers 503 so many times."""

    def prepare(scene: Scene) -> None:
        def fault(conversation: TokenConversation) -> bool:
            scene.asked += 1
            if scene.asked > times:
                return False
            conversation.answer(503, b"{}")
            return True

        scene.add()
        scene.tokens.fault = fault
        scene.registry.bearer = scene.tokens

    return prepare


def store(script: str | None) -> Callable[[Scene], None]:
    """A credential store that is the script, or that is not there; the image is for everybody."""

    def prepare(scene: Scene) -> None:
        scene.add()
        scene.registry.bearer = scene.tokens
        scene.home.write(".docker/config.json", config_with_store("desktop"))
        if script is not None:
            scene.home.write("bin/docker-credential-desktop", f"#!/bin/sh\ncat >/dev/null\n{script}\n", 0o755)

    return prepare


def configuration(content: str) -> Callable[[Scene], None]:
    """A configuration of Docker's that holds something else; the image is for everybody."""

    def prepare(scene: Scene) -> None:
        scene.add()
        scene.registry.bearer = scene.tokens
        scene.home.write(".docker/config.json", content)

    return prepare


def login(key: str, auth: Callable[[str], str]) -> Callable[[Scene], None]:
    """A login in Docker's configuration in one of its forms, for an image that needs one."""

    def prepare(scene: Scene) -> None:
        scene.add()
        scene.registry.users = {"ann": "x" * 60}
        given = auth(base64.b64encode(b"ann:" + b"x" * 60).decode())
        document = {"auths": {key.format(host=scene.registry.host): {"auth": given}}}
        scene.home.write(".docker/config.json", json.dumps(document))

    return prepare


def proxy(address: str) -> Callable[[Scene], None]:
    """A proxy's address that is written wrongly, with a password in it."""

    def prepare(scene: Scene) -> None:
        scene.reference = "registry.example/tools/app:1"
        scene.home = replace(scene.home, variables={"HTTPS_PROXY": address})

    return prepare


# -- registries that are read ------------------------------------------------------------------


def faulty(fault: Fault) -> Callable[[Scene], None]:
    """A registry that has the image, with a fault."""

    def prepare(scene: Scene) -> None:
        scene.add()
        scene.registry.fault = fault

    return prepare


def rate_limit(scene: Scene) -> None:
    """A registry that is busy for two requests, and says for how long."""

    def fault(conversation: Conversation) -> bool:
        if "/manifests/" not in conversation.path or scene.asked == 2:
            return False
        scene.asked += 1
        return conversation.refuse(429, "TOOMANYREQUESTS", Retry_After="1")

    scene.add()
    scene.registry.fault = fault


def break_off(scene: Scene) -> None:
    """A connection that breaks in the middle of the layer."""
    scene.add()
    (layer,) = (it for it in scene.registry.blobs.values() if len(it) > 100_000)

    def fault(conversation: Conversation) -> bool:
        if conversation.path.endswith(sha256(layer)) and conversation.command == "GET" and not scene.asked:
            scene.asked += 1
            return conversation.partly(layer, upto=100_000)
        return False

    scene.registry.fault = fault


def encoded(part: str) -> Callable[[Scene], None]:
    """A cache before the registry that encodes what nobody asked to be."""

    def prepare(scene: Scene) -> None:
        scene.add()
        config = scene.image.parsed.digest.hex

        def fault(conversation: Conversation) -> bool:
            path = conversation.path
            wanted = "/manifests/" in path if part == "manifest" else config in path
            if conversation.command != "GET" or not wanted:
                return False
            content = scene.manifest if part == "manifest" else scene.image.config
            kind = json.loads(scene.manifest)["mediaType"] if part == "manifest" else "application/octet-stream"
            return conversation.answer(200, gzip.compress(content), Content_Type=kind, Content_Encoding="gzip")

        scene.registry.fault = fault

    return prepare


def storage_refuses(scene: Scene) -> None:
    """Storage behind the registry that refuses the layers."""
    scene.add()
    scene.registry.fault = lambda it: (
        it.command == "GET" and "/blobs/" in it.path and it.answer(307, Location=f"http://{scene.other.host}/s?k=v")
    )
    scene.other.fault = lambda it: it.answer(403, b"<Error><Code>AccessDenied</Code></Error>")


def names_storage(scene: Scene, done: Run) -> str:
    """If the error says who refused."""
    return f"{done.verdict}, {'names storage' if scene.other.host in done.said else 'without naming storage'}"


def typo(scene: Scene) -> None:
    """A name that is wrong, where the registry tells nobody what there is."""
    scene.registry.bearer = scene.tokens
    realm = f'Bearer realm="{scene.tokens.url}/token",service="scripted"'
    scene.registry.fault = lambda it: it.refuse(401, "UNAUTHORIZED", WWW_Authenticate=realm)


def lost_child(scene: Scene) -> None:
    """An index whose image is gone."""
    digest = scene.add()
    listed = index((str(PLATFORM), digest, len(scene.manifest)))
    for name in ("1", digest):
        del scene.registry.manifests["tools/app", name]
    scene.registry.put_manifest("tools/app", "1", listed, OCI_INDEX)


def indexed(*platforms: str, artifact: bool = False) -> Callable[[Scene], None]:
    """An index that lists the image once for each of these, and maybe an artifact that says no platform either."""

    def prepare(scene: Scene) -> None:
        entries = [(platform, scene.add(), len(scene.manifest)) for platform in platforms]
        if artifact:
            empty = scene.registry.blob("tools/app", b"{}")
            described = {"digest": empty, "size": 2}
            document = {
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "artifactType": "application/vnd.example.sbom",
                "config": {"mediaType": "application/vnd.oci.empty.v1+json", **described},
                "layers": [{"mediaType": "application/json", **described}],
            }
            raw = json.dumps(document).encode()
            entries.append(("", scene.registry.put_manifest("tools/app", "sbom", raw), len(raw)))
        scene.registry.put_manifest("tools/app", "1", index(*entries), OCI_INDEX)

    return prepare


# -- mirrors -----------------------------------------------------------------------------------


def mirror(fault: Fault | None = None, *, holds: bool = False) -> Callable[[Scene], None]:
    """A mirror with a fault, before a registry that has the image."""

    def prepare(scene: Scene) -> None:
        scene.add()
        if holds:
            scene.other.add("tools/app:1", scene.image)
        scene.other.fault = fault or (lambda conversation: False)
        scene.home = replace(scene.home, mirrors={scene.registry.host: scene.other.host})

    return prepare


def of_layers(fault: Fault) -> Fault:
    """The fault in answers to GET of large blobs alone."""

    def in_layers(conversation: Conversation) -> bool:
        content = conversation.server.blobs.get(conversation.path.rpartition("/")[2], b"")
        return conversation.command == "GET" and len(content) > 100_000 and fault(conversation)

    return in_layers


def be_silent(conversation: Conversation) -> bool:
    """Say nothing for a long time."""
    time.sleep(100)
    conversation.close_connection = True
    return True


def login_page(conversation: Conversation) -> bool:
    """Answer as a captive portal does."""
    return conversation.answer(200, b"<html>Please log in</html>", Content_Type="text/html")


# -- lists -------------------------------------------------------------------------------------


def linked(link: str) -> Callable[[Scene], None]:
    """Two pages of tags, the second behind a link of that form."""

    def prepare(scene: Scene) -> None:
        def fault(conversation: Conversation) -> bool:
            path, _, query = conversation.path.partition("?")
            if not path.endswith("/tags/list"):
                return False
            if "last=first" in query:
                return conversation.answer(200, b'{"name":"tools/app","tags":["second"]}')
            link_of = link.format(host=scene.registry.host)
            return conversation.answer(200, b'{"name":"tools/app","tags":["first"]}', Link=link_of)

        scene.registry.fault = fault

    return prepare


def circle(scene: Scene) -> None:
    """A page that leads to itself."""
    place = '</v2/tools/app/tags/list?last=first>; rel="next"'
    body = b'{"name":"tools/app","tags":["first","second"]}'
    scene.registry.fault = lambda it: "/tags/list" in it.path and it.answer(200, body, Link=place)


def many_tags(scene: Scene) -> None:
    """All tags in one answer, as distribution 2.8 gives them."""
    names = [f"build-{number:06d}-feature-branch-0123456789abcdef" for number in range(100_000)]
    body = json.dumps({"name": "tools/app", "tags": names}).encode()
    scene.registry.fault = lambda it: "/tags/list" in it.path and it.answer(200, body)


# -- registries that are pushed to ---------------------------------------------------------------


def putting_manifests(act: Callable[[Scene, Conversation], bool]) -> Callable[[Scene], None]:
    """A registry with a fault in taking manifests."""

    def prepare(scene: Scene) -> None:
        scene.registry.fault = lambda it: it.command == "PUT" and "/manifests/" in it.path and act(scene, it)

    return prepare


def immutable(status: int, *, loses_answer: bool = False) -> Callable[[Scene], None]:
    """Tags that may not be moved; the answer to the first manifest may get lost."""

    def act(scene: Scene, conversation: Conversation) -> bool:
        name = conversation.path.rpartition("/")[2]
        if ("tools/app", name) in scene.registry.manifests:
            return conversation.refuse(status, "TAG_INVALID")
        if loses_answer and not scene.asked:
            scene.asked += 1
            kind = conversation.headers["Content-Type"]
            scene.registry.put_manifest("tools/app", name, conversation.request_seen.body, kind)
            conversation.reset()
            return True
        return False

    return putting_manifests(act)


def no_oci(status: int, code: str, message: str) -> Callable[[Scene], None]:
    """A registry that knows Docker's manifests alone, and says so in words of its own."""
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    return putting_manifests(lambda _, it: "oci" in it.headers.get("Content-Type", "") and it.answer(status, body))


def write_anew(scene: Scene, conversation: Conversation) -> bool:
    """Keep a manifest in other words, and say by which digest."""
    name = conversation.path.rpartition("/")[2]
    raw = json.dumps(json.loads(conversation.request_seen.body), indent=7).encode()
    digest = scene.registry.put_manifest("tools/app", name, raw, conversation.headers["Content-Type"])
    return conversation.answer(201, Docker_Content_Digest=digest, Location=f"/v2/tools/app/manifests/{digest}")


def carrying_bytes(act: Callable[[Scene, Conversation], bool]) -> Callable[[Scene], None]:
    """A registry with a fault in the requests that bring a layer's bytes."""

    def prepare(scene: Scene) -> None:
        def fault(conversation: Conversation) -> bool:
            is_upload = conversation.command in ("PATCH", "PUT") and "/uploads/" in conversation.path
            return is_upload and len(conversation.request_seen.body) > 50_000 and act(scene, conversation)

        scene.registry.fault = fault

    return prepare


def lose_bytes_and_lie(scene: Scene) -> None:
    """The answer to the bytes of a layer gets lost after they were kept; asked, the registry says one too many."""

    def fault(conversation: Conversation) -> bool:
        if "/uploads/" not in conversation.path:
            return False
        body = conversation.request_seen.body
        number = conversation.path.partition("?")[0].rpartition("/")[2]
        if conversation.command in ("PATCH", "PUT") and len(body) > 50_000 and not scene.asked:
            scene.asked += 1
            scene.registry.uploads[number] += body
            conversation.reset()
            return True
        if conversation.command == "GET" and number in scene.registry.uploads:
            held = len(scene.registry.uploads[number])
            return conversation.answer(204, Location=conversation.path, Range=f"0-{held}")
        return False

    scene.registry.fault = fault


def be_late(scene: Scene, conversation: Conversation) -> bool:
    """Answer after a minute, once."""
    if scene.asked:
        return False
    scene.asked += 1
    scene.met += 1
    time.sleep(62)
    return False


def limit_bodies(_: Scene, conversation: Conversation) -> bool:
    """Refuse more than 2 MB at once, as a proxy before the registry does."""
    return len(conversation.request_seen.body) > 2_000_000 and conversation.answer(413, b"<html>too large</html>")


def storage_refuses_head(scene: Scene) -> None:
    """Storage behind the registry whose signed address is for GET alone."""

    def fault(conversation: Conversation) -> bool:
        known = conversation.path.rpartition("/")[2] in scene.registry.blobs
        is_head = conversation.command == "HEAD" and "/blobs/" in conversation.path and known
        return is_head and conversation.answer(307, Location=f"http://{scene.other.host}/store?signature=x")

    scene.registry.fault = fault
    scene.other.fault = lambda it: it.answer(403)


def situations() -> list[Situation]:
    """All of them, in the order of the table."""
    found: list[Any] = [
        Situation("token server busy twice (503)", "pull", busy_tokens(2)),
        Situation("token server busy for good (503)", "pull", busy_tokens(10**6), with_count),
        Situation("registry busy twice (429, `Retry-After: 1`)", "pull", rate_limit),
        Situation("credential store missing, public image", "pull", store(None)),
        Situation("credential store fails, public image", "pull", store('echo "pass not initialized"; exit 1')),
        Situation("`config.json` is no JSON, public image", "pull", configuration("{auths")),
        Situation("login: `auth` ends in a newline", "pull", login("{host}", lambda text: f"{text}\n")),
        Situation(
            "login: `auth` is wrapped", "pull", login("{host}", lambda text: "\n".join(re.findall(".{1,76}", text)))
        ),
        Situation("login: key is `http://HOST/v2/`", "pull", login("http://{host}/v2/", str)),
        Situation("login: key is `HOST/tools`", "pull", login("{host}/tools", str)),
        *(
            Situation(f"proxy's password has `{mark}` in it", "pull", proxy(address), hidden, needs="has_proxy")
            for mark, address in ((it, f"http://user:Hunter2{it}x@127.0.0.1:9") for it in ("#", "/", "?", "["))
        ),
        Situation("layer's connection breaks", "pull", break_off),
        Situation("manifest encoded unasked (gzip)", "pull", encoded("manifest")),
        Situation("config encoded unasked (gzip)", "pull", encoded("config")),
        Situation("storage refuses a layer (403)", "pull", storage_refuses, names_storage),
        Situation(
            "name is wrong, registry answers 401", "pull", typo, says(r"no such|not exist|exists|not found|unknown")
        ),
        Situation("index whose image is gone", "pull", lost_child, says(r"app:1 is an index|index.*(lost|gone)")),
        Situation("index: entry without a platform", "pull", indexed("")),
        Situation("index: entry without a platform, beside an artifact", "pull", indexed("", artifact=True)),
        Situation("index: processor called `x86_64`", "pull", indexed("linux/x86_64")),
        Situation("mirror gives a login page", "pull", mirror(login_page), needs="has_mirrors"),
        Situation("mirror lacks the image", "pull", mirror(), needs="has_mirrors"),
        Situation(
            "mirror lacks a layer",
            "pull",
            mirror(of_layers(lambda it: it.refuse(404, "BLOB_UNKNOWN")), holds=True),
            needs="has_mirrors",
        ),
        Situation(
            "mirror gives other bytes for a layer",
            "pull",
            mirror(of_layers(lambda it: it.answer(200, noise(300_000)[::-1])), holds=True),
            needs="has_mirrors",
        ),
        Situation("mirror is silent", "pull", mirror(be_silent), needs="has_mirrors"),
        *(
            Situation(f"tags: `Link: {link.format(host='HOST')}`", "tags", linked(link), lists("first", "second"))
            for link in (
                '</v2/tools/app/tags/list?last=first>; rel="next"',
                "</v2/tools/app/tags/list?last=first>; rel=next",
                '<http://{host}/v2/tools/app/tags/list?last=first>; rel="next"',
                '<http://inner.example/v2/tools/app/tags/list?last=first>; rel="next"',
                '<?last=first>; rel="next"',
                '</v2/tools/app/tags/list>; rel="first", </v2/tools/app/tags/list?last=first>; rel="next"',
            )
        ),
        Situation("tags: 100,000 in one answer", "tags", many_tags, lists("build-000000-", "build-099999-")),
        Situation("tags: pages lead in a circle", "tags", circle, lists("first", "second"), seconds=30),
        *(
            Situation(f"tag may not be moved ({status}), same image again", "push", immutable(status), times=2)
            for status in (400, 403, 409)
        ),
        Situation("tag may not be moved, first answer lost", "push", immutable(409, loses_answer=True)),
        *(
            Situation(f"OCI manifests refused ({status} {code}: {message})", "push", no_oci(status, code, message))
            for status, code, message in (
                (400, "MANIFEST_INVALID", "manifest invalid"),
                (405, "UNSUPPORTED", "Invalid JSON syntax"),
                (405, "UNSUPPORTED", "The operation is unsupported"),
                (415, "MANIFEST_INVALID", "unsupported media type"),
            )
        ),
        Situation("manifest written anew: digest", "push", putting_manifests(write_anew), digest_told),
        Situation("upload's answer lost, state told wrongly", "push", lose_bytes_and_lie),
        Situation("upload answered after 62 s", "push", carrying_bytes(be_late), seconds=150),
        Situation("requests over 2 MB refused (413)", "push", carrying_bytes(limit_bodies), size=5_000_000),
        Situation("storage refuses `HEAD`, same image again", "push", storage_refuses_head, sent_again, times=2),
    ]
    return list(found)
