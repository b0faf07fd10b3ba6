"""Which URLs of a client's are never fetched."""

from __future__ import annotations

import pytest

from atomr_infer.policy.fetch_rules import (
    FetchTarget,
    ForbiddenUrlError,
    check_address,
    fetch_target,
)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.255.254",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "::1",
        "::",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "2002:7f00:1::",
        "2002:a00:1::",
        "64:ff9b::7f00:1",
        "64:ff9b::169.254.169.254",
        "2001:db8::1",
        "168.63.129.16",
        "192.0.0.192",
        "192.88.99.1",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
        "64:ff9b::a83f:8110",
        "64:ff9b:1::7f00:1",
        "fec0::1",
        "3fff::1",
        "5f00::1",
    ],
)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    with pytest.raises(ForbiddenUrlError):
        check_address(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808"]
)
def test_a_public_address_is_allowed(address: str) -> None:
    check_address(address)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://x/y", "only http and https"),
        ("file:///etc/passwd", "only http and https"),
        ("gopher://x", "only http and https"),
        ("//x/y", "only http and https"),
        ("https:///y", "names no host"),
        ("https://user:pw@x/y", "a user or a password"),
        ("http://x:22/", "port 22"),
        ("https://x:80/", "port 80"),
        ("http://x:99999/", "not a URL"),
        ("http://[::1/", "not a URL"),
    ],
)
def test_a_url_of_another_form_is_refused(url: str, why: str) -> None:
    with pytest.raises(ForbiddenUrlError, match=why):
        fetch_target(url)


def test_a_url_is_taken_apart() -> None:
    assert fetch_target("http://X.example:8080") == FetchTarget(
        "http://x.example:8080", "/"
    )
    assert fetch_target("https://[2606:4700::1]/a?b") == FetchTarget(
        "https://[2606:4700::1]:443", "/a?b"
    )
