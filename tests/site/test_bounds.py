# SPDX-License-Identifier: Apache-2.0
"""What one client can make of the site: nothing before its token is known, and no request that stops the others."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlencode

import pytest

from arv_docker.site.api import endpoint, parameters, users
from arv_docker.site.api.parameters import json_of
from arv_docker.site.folder import SiteFolder, hold_folder_lock, open_site
from arv_docker.site.http import protocol
from arv_docker.site.http.addresses import addresses, announce
from arv_docker.site.refusal import Refusal
from arv_docker.site.store.database import TookTooLong

from .conftest import Direct, Web
from .test_clients import connected, start

LINKS = "/arvados/v1/links"


@contextmanager
def peer(web: Web) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", web.port), timeout=20) as connection:
        yield connection


def status(connection: socket.socket) -> int:
    """The status of the answer that comes; 0 where the connection ends without one."""
    try:
        start = connection.recv(100)
    except ConnectionResetError:
        return 0
    return int(start.split()[1]) if start else 0


# -- heads ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        b"X: " + b"a" * protocol.MAX_HEAD + b"\r\n",
        b"".join(b"X-%d: a\r\n" % number for number in range(protocol.MAX_FIELDS + 1)),
        b"".join(b"X-%d: %b\r\n" % (number, b"a" * 9000) for number in range(12)),
        b"",
    ],
    ids=["one long field", "many fields", "long together", "long address"],
)
def test_a_head_beyond_its_bounds_is_431(fields: bytes, web: Web) -> None:
    with peer(web) as connection:
        address = b"/arvados/v1/config" + (b"" if fields else b"?a=" + b"a" * 70_000)
        connection.sendall(b"GET " + address + b" HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n")
        assert status(connection) == 431
    assert web("GET", LINKS).status == 200


def test_an_address_as_long_as_a_real_server_takes_is_answered(web: Web) -> None:
    query = urlencode({"filters": json.dumps([["name", "in", ["x" * 100] * 500]])})
    assert web("GET", f"{LINKS}?{query}").status == 200


def test_a_head_without_an_end_is_not_kept(web: Web) -> None:
    with peer(web) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX: ")
        began = time.monotonic()
        with suppress(ConnectionError):
            while time.monotonic() - began < 20:
                connection.sendall(b"a" * 65536)
        assert time.monotonic() - began < 10  # it hung up
    assert protocol.BoundedProtocol._all_heads == 0


def test_heads_that_are_being_read_are_bounded_together(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_HEADS", 200_000)
    with ExitStack() as stack:
        connections = [stack.enter_context(peer(web)) for _ in range(4)]
        for connection in connections:
            connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"a" * 80_000)
            time.sleep(0.1)
        assert status(connections[2]) == 431
        assert web("GET", LINKS).status == 200


def test_a_head_that_does_not_come_ends_the_connection(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.3)
    with peer(web) as connection, peer(web) as other:
        other.sendall(b"GET / HT")
        assert (status(connection), status(other)) == (0, 0)


def test_connections_are_bounded(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_CONNECTIONS", 5)
    with ExitStack() as stack:
        connections = [stack.enter_context(peer(web)) for _ in range(6)]
        assert status(connections[5]) == 0
        connections[0].sendall(b"GET /arvados/v1/config HTTP/1.1\r\nHost: x\r\n\r\n")
        assert status(connections[0]) == 200


def test_requests_that_nobody_waits_for_are_bounded(web: Web) -> None:
    """Ten thousand in a few packets kept everybody waiting for half a minute, without a token."""
    with peer(web) as connection:
        connection.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n" * 5_000)
        answered = 0
        with suppress(ConnectionError):
            while received := connection.recv(65536):
                answered += received.count(b"HTTP/1.1 ")
    assert answered <= protocol.MAX_WAITING + 1
    assert web("GET", LINKS).status == 200


def test_requests_in_one_packet_are_each_answered(web: Web) -> None:
    """The next head may begin in the packet that ends a body of any size."""
    body = b"{" + b" " * 200_000 + b"}"
    request = (
        f"POST {LINKS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {web.token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    )
    with peer(web) as connection:
        connection.sendall((request + body) * 3)
        received = b""
        while received.count(b"HTTP/1.1 200") < 3:
            received += connection.recv(65536)


# -- handshakes -------------------------------------------------------------------------


def test_handshakes_that_do_not_end_are_few_and_cost_little(tmp_path: Path) -> None:
    """asyncio keeps 256 KiB for each from its first moment; nobody has shown a token by then."""
    served = start(tmp_path / "site")
    port = int(served.first_line.split("127.0.0.1:")[1].split("/")[0])
    with served.process, ExitStack() as stack:
        connection, headers = connected(served.folder)
        connection.request("GET", "/arvados/v1/config", headers=headers)
        connection.getresponse().read()
        before = memory(served.process.pid)
        begun = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 20)) for _ in range(200)]
        assert refused(begun) == len(begun) - protocol.MAX_HANDSHAKES
        assert memory(served.process.pid) - before < 8 << 20
        for one in begun:
            one.close()
        connection.request("GET", "/arvados/v1/config", headers=headers)  # who is in, stays in
        assert connection.getresponse().read()
        connection.close()
        served.process.kill()


def memory(process: int) -> int:
    """The memory that a process occupies, in bytes."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4096


def refused(connections: list[socket.socket]) -> int:
    """The number of connections that the server has ended, when no more come for a second."""
    count = -1
    while count != (count := len(select.select(connections, [], [], 0)[0])):
        time.sleep(1)
    return count


# -- bodies -----------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["", "wrong"])
@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded"])
def test_a_large_body_is_not_read_before_the_token_is_known(kind: str, token: str, web: Web) -> None:
    with peer(web) as connection:
        authorization = f"Authorization: Bearer {token}\r\n" if token else ""
        connection.sendall(
            f"POST {LINKS} HTTP/1.1\r\nHost: x\r\n{authorization}Content-Type: {kind}\r\n"
            f"Content-Length: {100 << 20}\r\n\r\n".encode()
        )
        assert status(connection) == 401  # nothing of the body was sent


def test_bodies_that_do_not_come_keep_nobody_waiting(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as are read at one time of those without a token; others without one are answered all the same."""
    monkeypatch.setattr("arv_docker.site.http.app.STRANGER_SECONDS", 2)
    with ExitStack() as stack:
        connections = [stack.enter_context(peer(web)) for _ in range(20)]
        for connection in connections:
            connection.sendall(f"POST {LINKS} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n".encode())
        assert web("GET", "/arvados/v1/config", authorization="").status == 200
        assert web("GET", LINKS).status == 200
        assert [status(connection) for connection in connections] == [401] * 20


def test_a_token_in_a_form_is_a_token(web: Web) -> None:
    body = f"api_token={web.token}&_method=GET".encode()
    reply = web("POST", LINKS, body, authorization="", content_type="application/x-www-form-urlencoded")
    assert reply.status == 200


def test_json_of_many_values_is_refused_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parameters, "MAX_VALUES", 100)
    for text in ("[" + "[],[]," * 60 + "[]]", '{"a":[' + "1," * 200 + "1]}", '["' + '","' * 300 + '"]'):
        with pytest.raises(Refusal, match="values"):
            json_of(text)


def test_what_is_inside_texts_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parameters, "MAX_VALUES", 100)
    text = "," * 500 + '\\"{[:' * 50 + "\\\\"
    assert json_of(json.dumps([text])) == [text]


# -- queries ----------------------------------------------------------------------------


def test_more_than_a_thousand_filters_are_422(api: Direct) -> None:
    filters = [["name", "!=", "x"]]
    assert api.ok("GET", "links", filters=filters * 1000)["items"] == []
    assert "at most 1000" in api.refused(422, "GET", "links", filters=filters * 1001)


@pytest.mark.parametrize("attribute", ["name", "properties.x"])
@pytest.mark.parametrize("op", ["like", "ilike"])
def test_a_pattern_that_is_too_long_is_422(op: str, attribute: str, api: Direct) -> None:
    assert "1024 characters" in api.refused(422, "GET", "links", filters=[[attribute, op, "%" * 1025]])


def test_a_statement_is_given_up_when_its_time_has_passed(tmp_path: Path) -> None:
    site = open_site(tmp_path / "site")
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    began = time.monotonic()
    with pytest.raises(TookTooLong), site.database.reading(0.2) as connection:
        connection.execute(endless).fetchone()
    with pytest.raises(TookTooLong), site.database.writing(0.2) as connection:
        connection.execute(endless).fetchone()
    assert time.monotonic() - began < 30
    with site.database.writing(0.2) as connection:  # the connection serves again
        connection.execute("DELETE FROM links")
    site.close()


def test_a_request_that_takes_too_long_is_422(api: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arv_docker.site.api.endpoint.QUERY_SECONDS", -1)
    monkeypatch.setattr("arv_docker.site.store.database._STEPS", 1)
    api.site.database.close()  # new connections look at the clock at each step
    assert "narrower filters" in api.refused(422, "GET", "links")


def test_slow_requests_of_one_token_leave_others_their_turn(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on, slow = threading.Event(), []
    answer = endpoint.Api.answer

    def waiting(self: endpoint.Api, request: endpoint.Request) -> endpoint.Answer:
        if request.path == "workflows":
            slow.append(1)
            goes_on.wait(60)
        return answer(self, request)

    monkeypatch.setattr(endpoint.Api, "answer", waiting)
    other = token_of_another(web)
    with ExitStack() as stack:
        for _ in range(40):
            connection = stack.enter_context(peer(web))
            head = f"GET /arvados/v1/workflows HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {web.token}\r\n\r\n"
            connection.sendall(head.encode())
        while len(slow) < 8:
            time.sleep(0.01)
        assert web("GET", LINKS, authorization=f"Bearer {other}").status == 200
        assert web("PUT", "/d41d8cd98f00b204e9800998ecf8427e", b"").status == 200
        assert len(slow) == 8
        goes_on.set()


def token_of_another(web: Web) -> str:
    """A token of another user."""
    site = open_site(web.folder)
    users.create(site.database, site.settings, "other", is_admin=False)
    token = users.new_token(site.database, site.settings, "other", None)
    site.close()
    return token


# -- the end ----------------------------------------------------------------------------


def test_a_served_site_ends_on_sigterm_whatever_its_clients_do(tmp_path: Path) -> None:
    """With handshakes that never end, a block of which only half comes, and the folder's lock in other hands."""
    served = start(tmp_path / "site")
    port = int(served.first_line.split("127.0.0.1:")[1].split("/")[0])
    with served.process, ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(socket.create_connection(("127.0.0.1", port))).sendall(b"\x16\x03\x01")
        connection, headers = connected(served.folder)
        connection.putrequest("PUT", f"/{'0' * 32}")
        for name, value in {**headers, "Content-Length": "100"}.items():
            connection.putheader(name, value)
        connection.endheaders(b"half")
        stack.enter_context(hold_folder_lock(SiteFolder(served.folder)))
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(timeout=320) == 0  # 16 s at most where nothing else runs
        connection.close()


# -- several servers, and people --------------------------------------------------------


def test_the_address_stays_as_long_as_one_server_runs(tmp_path: Path) -> None:
    folder = open_site(tmp_path / "site").folder
    first, second = announce(folder, "127.0.0.1:1"), announce(folder, "127.0.0.1:2")
    first.__enter__()
    second.__enter__()
    assert addresses(folder) == ["127.0.0.1:2", "127.0.0.1:1"]
    first.__exit__(None, None, None)
    assert addresses(folder) == ["127.0.0.1:2"]
    second.__exit__(None, None, None)
    assert not folder.address.exists()


def test_the_address_of_a_killed_server_goes_with_the_next_announcement(tmp_path: Path) -> None:
    folder = open_site(tmp_path / "site").folder
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    folder.address.write_text(f"127.0.0.1:1\n{gone.pid}\n127.0.0.1:3\n{os.getppid()}\n")
    with announce(folder, "127.0.0.1:2"):
        assert addresses(folder) == ["127.0.0.1:2", "127.0.0.1:3"]


def test_a_browser_gets_a_page_for_people(web: Web) -> None:
    reply = web("GET", "/", authorization="", accept="text/html,application/xhtml+xml,*/*;q=0.8")
    assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"arv-docker images" in reply.body
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert web("GET", "/", accept="*/*").status == 400  # as Keep answers to what is no locator
