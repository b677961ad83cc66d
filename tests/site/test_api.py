# SPDX-License-Identifier: Apache-2.0
"""Paths, methods, tokens and the shapes of answers, whatever the resource."""

from __future__ import annotations

import base64
import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from arv_docker.site.api.discovery import Origin, origin_of
from arv_docker.site.api.endpoint import Api, Request, token_of
from arv_docker.site.api.parameters import merge_parameters

from .conftest import Direct


def send(api: Direct, **changes: Any) -> Any:
    """One request, spelt out; the answer."""
    request: dict[str, Any] = {
        "method": "GET",
        "path": "collections",
        "query": "",
        "headers": {"authorization": f"Bearer {api.site.settings.token}"},
        "body": b"",
        "origin": Origin("http", "127.0.0.1", 1),
    }
    return Api(api.site.database, api.site.settings, api.site.vocabulary).answer(Request(**request | changes))


@pytest.mark.parametrize("token", ["", "v2/zzzzz-gj3su-000000000000000/bogus", "bogus", "v2/x", "v2/a/b/c/d/e"])
def test_without_a_good_token_nothing_is_answered(api: Direct, token: str) -> None:
    assert "Not logged in" in api.refused(401, "GET", "collections", token=token)


def test_each_form_of_the_token_names_the_user(api: Direct) -> None:
    settings = api.site.settings
    basic = base64.b64encode(f"anybody:{settings.token}".encode()).decode()
    for header in (
        f"Bearer {settings.token}",
        f"OAuth2 {settings.token}",
        f"Bearer {settings.token_secret}",
        f"Bearer {settings.token}/zzzzz-dz642-000000000000000",
        f"Basic {basic}",
    ):
        answer = send(api, path="users/current", headers={"authorization": header})
        assert answer.body["uuid"] == settings.user_uuid, header
    answer = send(api, path="users/current", headers={}, query=f"api_token={settings.token}")
    assert answer.body["uuid"] == settings.user_uuid


def test_the_scheme_is_case_sensitive_as_on_a_real_server(api: Direct) -> None:
    assert token_of({"authorization": "bearer abc"}) == ""
    assert token_of({"authorization": "Basic ***"}) == ""


def test_a_v2_token_with_the_secret_of_another_is_refused(api: Direct) -> None:
    secret = api.site.settings.token_secret
    api.refused(401, "GET", "users/current", token=f"v2/{api.site.settings.cluster_id}-gj3su-000000000000000/{secret}")


@pytest.mark.parametrize(
    ("status", "method", "path"),
    [
        (404, "GET", "nosuch"),
        (404, "GET", "collections/garbage"),
        (404, "GET", "collections/zzzzz-4zz18-zzzzzzzzzzzzzzz"),
        (404, "GET", f"collections/{'0' * 32}"),
        (404, "GET", f"collections/{'0' * 32}+1"),
        (404, "GET", "links/zzzzz-o0j2j-zzzzzzzzzzzzzzz"),
        (404, "GET", "collections/a/b/c/d"),
        (404, "GET", "links/garbage"),
        (404, "PUT", "groups/garbage"),
        (404, "GET", "links/zzzzz-o0j2j-zzzzzzzzzzzzzzz/trash"),
        (404, "GET", ""),
        (404, "GET", "users/zzzzz-tpzed-zzzzzzzzzzzzzzz"),
        (501, "PUT", "users/zzzzz-tpzed-zzzzzzzzzzzzzzz"),
        (501, "GET", "users/system"),
        (501, "GET", "api_client_authorizations"),
        (405, "DELETE", "collections"),
        (405, "PUT", "links"),
        (405, "POST", "config"),
        (405, "GET", "collections/zzzzz-4zz18-zzzzzzzzzzzzzzz/trash"),
        (501, "GET", "container_requests/zzzzz-xvhdp-zzzzzzzzzzzzzzz/container_status"),
        (501, "POST", "containers/zzzzz-dz642-zzzzzzzzzzzzzzz/lock"),
        (501, "POST", "logs"),
        (501, "GET", "groups/zzzzz-j7d0g-zzzzzzzzzzzzzzz/contents"),
        (501, "POST", "users"),
        (501, "POST", "sys/trash_sweep"),
        (501, "GET", "collections/zzzzz-4zz18-zzzzzzzzzzzzzzz/provenance"),
    ],
)
def test_what_is_not_there_says_so(api: Direct, status: int, method: str, path: str) -> None:
    message = api.refused(status, method, path)
    assert status != 501 or "not part of the embedded site" in message


def test_errors_come_in_an_envelope_with_the_request_id(api: Direct) -> None:
    answer = send(api, path="nosuch", headers={"x-request-id": "req-abc"})
    assert answer.body == {"errors": ["Path not found (req-abc)"]}
    assert answer.request_id == "req-abc"
    assert re.search(r"\(req-\w{20}\)$", api.refused(404, "GET", "nosuch"))


def test_config_vocabulary_and_keep_services_need_no_token(api: Direct) -> None:
    for path in ("config", "vocabulary", "keep_services/accessible"):
        assert send(api, path=path, headers={}).status == 200


def test_a_post_may_stand_for_a_get(api: Direct) -> None:
    name = "a&b=c"
    api.ok("POST", "links", {"link_class": "tag", "name": name})
    form = b"filters=%5B%5B%22name%22%2C%22%3D%22%2C%22a%26b%3Dc%22%5D%5D&count=none"
    headers = {
        "authorization": f"Bearer {api.site.settings.token}",
        "content-type": "application/x-www-form-urlencoded",
        "x-http-method-override": "GET",
    }
    answer = send(api, method="POST", path="links", headers=headers, body=form)
    assert [item["name"] for item in answer.body["items"]] == [name]
    assert "items_available" not in answer.body
    del headers["x-http-method-override"]
    answer = send(api, method="POST", path="links", headers=headers, body=form + b"&_method=GET")
    assert [item["name"] for item in answer.body["items"]] == [name]


def test_attributes_come_wrapped_bare_or_as_a_form_field(api: Direct) -> None:
    assert api.ok("POST", "links", {"link": {"name": "a"}})["name"] == "a"
    assert api.ok("POST", "links", {"name": "b"})["name"] == "b"
    assert api.ok("POST", "links", {"link": '{"name":"c"}'})["name"] == "c"
    headers = {
        "authorization": f"Bearer {api.site.settings.token}",
        "content-type": "application/x-www-form-urlencoded",
    }
    answer = send(api, method="POST", path="links", headers=headers, body=b"link=%7B%22name%22%3A%22d%22%7D")
    assert answer.body["name"] == "d"


def test_siblings_of_a_wrapped_record_are_parameters_in_a_bare_one_they_are_attributes(api: Direct) -> None:
    assert set(api.ok("POST", "links", {"link": {"name": "a"}, "select": ["uuid"]})) == {"uuid", "kind", "etag"}
    assert "select" in api.refused(422, "POST", "links", {"name": "a", "select": ["uuid"]})


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":',
        b"[1]",
        b'"x"',
        b'{"a":NaN}',
        b'{"a":1e999}',
        b'{"a":' + b"[" * 200 + b"]" * 200 + b"}",
        b"[" * 100000,
        b'{"a":1}x',
    ],
)
def test_malformed_json_is_400(api: Direct, body: bytes) -> None:
    assert send(api, method="POST", body=body).status == 400


def test_a_body_of_another_type_is_ignored(api: Direct) -> None:
    headers = {"authorization": f"Bearer {api.site.settings.token}", "content-type": "text/plain"}
    answer = send(api, method="POST", path="links", headers=headers, body=b'{"name":"x"}')
    assert (answer.status, answer.body["name"]) == (200, "")


def test_lone_surrogates_and_bad_utf8_become_replacement_characters() -> None:
    assert merge_parameters("", "application/json", b'{"name":"\\ud800x","\\udfff":["\\udc00"]}').values == {
        "name": "\ufffdx",
        "\ufffd": ["\ufffd"],
    }
    assert merge_parameters("", "application/json", b'{"name":"\xff"}').values == {"name": "\ufffd"}
    assert merge_parameters("", "application/json", b'{"name":"\\ud83d\\ude00"}').values == {"name": "\U0001f600"}


def test_times_grow_in_the_order_of_writing(api: Direct) -> None:
    """Also with many writers: the one that comes later in the database has the later time."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: api.ok("POST", "links", {}), range(64)))
    with api.site.database.reading() as connection:
        stamps = [row["created_at"] for row in connection.execute("SELECT created_at FROM links ORDER BY rowid")]
    assert len(stamps) == 64
    assert stamps == sorted(stamps)


def test_users_are_the_one_there_is(api: Direct) -> None:
    current = api.ok("GET", "users/current")
    assert current["is_active"]
    assert not current["is_admin"]
    assert current["full_name"]
    assert api.ok("GET", f"users/{current['uuid']}") == current
    assert [item["uuid"] for item in api.ok("GET", "users")["items"]] == [current["uuid"]]


def test_workflows_can_be_listed_where_there_are_none(api: Direct) -> None:
    """arv-copy asks for the workflows of a project, whether or not there are any."""
    found = api.ok("GET", "workflows", filters=[["owner_uuid", "=", api.site.settings.user_uuid]])
    assert (found["kind"], found["items"], found["items_available"]) == ("arvados#workflowList", [], 0)


def test_nobody_runs_in_a_container(api: Direct) -> None:
    api.refused(404, "GET", "containers/current")
    api.refused(403, "POST", "containers", {"command": ["true"]})


def test_the_current_token_shows_itself(api: Direct) -> None:
    token = api.ok("GET", "api_client_authorizations/current")
    assert token["api_token"] == api.site.settings.token_secret
    assert token["owner_uuid"] == api.site.settings.user_uuid
    assert token["scopes"] == ["all"]


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:8000", Origin("https", "127.0.0.1", 8000)),
        ("keep.example", Origin("https", "keep.example", 443)),
        ("[::1]:9", Origin("https", "::1", 9)),
        ("[::1]", Origin("https", "::1", 443)),
        ("", Origin("https", "localhost", 443)),
        ("a:b", Origin("https", "a", 443)),
    ],
)
def test_addresses_follow_the_host_header(host: str, origin: Origin) -> None:
    assert origin_of("https", host) == origin


def test_the_keep_service_is_where_the_client_already_is(api: Direct) -> None:
    answer = send(api, path="keep_services/accessible", origin=Origin("https", "::1", 99))
    [item] = answer.body["items"]
    assert (item["service_host"], item["service_port"], item["service_ssl_flag"]) == ("::1", 99, True)
    assert item["service_type"] == "disk"
    assert api.ok("GET", f"keep_services/{item['uuid']}")["uuid"] == item["uuid"]
    api.refused(404, "GET", "keep_services/zzzzz-bi6l4-000000000000000")


def test_times_have_nine_digits_and_the_same_value_each_time(api: Direct) -> None:
    created = api.ok("POST", "links", {"name": "a"})
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}000Z", created["created_at"])
    assert api.ok("GET", f"links/{created['uuid']}") == created


def test_values_the_database_cannot_hold_are_refused_not_a_500(api: Direct) -> None:
    api.refused(422, "POST", "collections", {"replication_desired": 10**30})
    api.refused(422, "POST", "links", {"name": "a\0b"})
    for text in ("{", "[]", '{"a":NaN}', '{"a":1e999}', '{"a":' * 200 + "1" + "}" * 200):
        api.refused(422, "POST", "links", {"properties": text})
    assert api.ok("POST", "links", {"properties": '{"a":"\\ud800"}'})["properties"] == {"a": "\ufffd"}
    api.refused(422, "GET", "collections", filters=[["version", "=", 10**30]])
    assert json.dumps(api.ok("GET", "collections", filters=[["name", "=", "\0"]])["items"]) == "[]"
