# SPDX-License-Identifier: Apache-2.0
"""Proxies of the environment: which hosts are reached without one, and what is said of an address that is none."""

from __future__ import annotations

import pytest

from arv_docker.errors import BadSettings
from arv_docker.local.proxy import Proxies, checked_proxy, proxy_secrets

PROXY = "http://proxy.example:3128"


def proxy_for(netloc: str, no_proxy: str, scheme: str = "https") -> str:
    environment = {"HTTPS_PROXY": PROXY, "http_proxy": PROXY, "NO_PROXY": no_proxy}
    return Proxies.of_environment(environment).proxy_for(scheme, netloc)


@pytest.mark.parametrize(
    ("netloc", "no_proxy"),
    [
        ("registry.example", "registry.example"),
        ("registry.example:5000", "registry.example"),
        ("REGISTRY.example", "Registry.EXAMPLE"),
        ("registry.example", " other.example , registry.example "),
        ("a.registry.example", "registry.example"),
        ("a.registry.example", ".registry.example"),
        ("a.b.registry.example", "*.registry.example"),
        ("registry.example:5000", "registry.example:5000"),
        ("registry.example", "registry.example:443"),
        ("a.registry.example:5000", ".registry.example:5000"),
        ("10.1.2.3:5000", "10.1.2.3"),
        ("10.1.2.3:5000", "10.0.0.0/8"),
        ("10.1.2.3", "10.1.2.3:443"),
        ("[2001:db8::77]:5000", "2001:db8::77"),
        ("[2001:db8::77]:5000", "[2001:db8::77]:5000"),
        ("[2001:DB8:0::77]", "2001:db8::/32"),
        ("anything.example", "*"),
        ("localhost:5000", ""),
        ("127.0.0.1:5000", ""),
        ("[::1]:5000", ""),
        ("registry.example.", "registry.example"),
    ],
)
def test_hosts_without_a_proxy(netloc: str, no_proxy: str) -> None:
    assert proxy_for(netloc, no_proxy) == ""


@pytest.mark.parametrize(
    ("netloc", "no_proxy"),
    [
        ("registry.example", ""),
        ("registry.example", ".registry.example"),
        ("registry.example", "*.registry.example"),
        ("myregistry.example", "registry.example"),
        ("registry.example.org", "registry.example"),
        ("registry.example:5000", "registry.example:5001"),
        ("registry.example", "registry.example:5000"),
        ("10.1.2.3", "10.1.2.4"),
        ("10.1.2.3", "11.0.0.0/8"),
        ("ten.example", "10.0.0.0/8"),
        ("110.1.2.3", "10.1.2.3"),
        ("registry.example", "no/network"),
        ("registry.example", ":443"),
        ("[2001:db9::77]:5000", "2001:db8::/32"),
        ("10.1.2.3", "2001:db8::/32"),
    ],
)
def test_hosts_behind_the_proxy(netloc: str, no_proxy: str) -> None:
    assert proxy_for(netloc, no_proxy) == PROXY


def test_variables_in_small_letters_go_first_and_a_cgi_program_takes_none_from_a_request() -> None:
    both = {"https_proxy": PROXY, "HTTPS_PROXY": "http://other.example:1", "HTTP_PROXY": PROXY}
    assert Proxies.of_environment(both).proxy_for("https", "a.example") == PROXY
    assert Proxies.of_environment(both).proxy_for("http", "a.example") == PROXY
    assert Proxies.of_environment({**both, "REQUEST_METHOD": "GET"}).proxy_for("http", "a.example") == ""


@pytest.mark.parametrize("scheme", ["http://", "https://", ""])
@pytest.mark.parametrize(
    "password", ["Hunter2#x", "Hunter2/x", "Hunter2?x", "Hunter2[x", "Hunter2]x", "12#Hunter2", "#"]
)
def test_a_password_that_cuts_the_address_in_two_is_not_shown(scheme: str, password: str) -> None:
    with pytest.raises(BadSettings, match=r"HTTPS_PROXY is not the address of a proxy.*%23") as caught:
        Proxies.of_environment({"HTTPS_PROXY": f"{scheme}ann:{password}@proxy.example:3128"}).proxy_for("https", "a.b")
    assert "Hunter2" not in str(caught.value)
    assert "proxy.example" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["socks5://a.example:1", "http://", "http://a.example:no", "http://a.example:99999"]
)
def test_what_is_no_address_of_a_proxy(address: str) -> None:
    with pytest.raises(BadSettings, match="https_proxy"):
        checked_proxy(address, "https_proxy")


def test_what_of_a_proxys_address_is_secret() -> None:
    assert proxy_secrets("http://proxy.example") == proxy_secrets("http://ann@proxy.example") == ()
    assert set(proxy_secrets("http://ann:the%20word@proxy.example")) == {"the%20word", "the word", "YW5uOnRoZSB3b3Jk"}
