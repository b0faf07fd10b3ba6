"""What a node is told is checked at once, and the error says the value and the fix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from atomr.cluster import DnsSeeds, FileSeeds, SrvSeeds, StaticSeeds
from atomr.cluster.discovery.address import HostPort, parse_address
from atomr.cluster.members.boot import MAX_BOOT, next_boot

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr.cluster import ClusterOptions
    from tests.atomr.http2.conftest import Authority


class _Busy:
    interval_s = 0.0

    async def find(self) -> tuple[str, ...]:
        return ()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": "no name"}, "node 'no name': expected up to 128 letters"),
        ({"name": 3}, "name=3: expected a text"),
        ({"cluster": ""}, "cluster '': expected up to 128 letters"),
        ({"cookie": b"short"}, "cookie of 5 bytes: expected at least 16"),
        ({"cookie": "a text, and no bytes"}, "cookie: expected bytes, not a str"),
        ({"name": "nx"}, "expected a certificate that names node:test/nx alone"),
        ({"name": "nx"}, "this one names node:test/a; use that node's certificate"),
        ({"cluster": "nope"}, "alone, and this one names node:test/a"),
        ({"credentials": None}, "credentials=None: expected Credentials.load(...)"),
        ({"listen": "127.0.0.1"}, "address '127.0.0.1': expected HOST:PORT"),
        ({"listen": "::1:4370"}, "expected an IPv6 address in brackets"),
        ({"listen": "0.0.0.0:4370"}, 'advertise="HOST" or advertise="HOST:PORT"'),
        ({"listen": "[::]:4370"}, "others cannot dial that"),
        ({"advertise": "0.0.0.0:4370"}, "expected a host and a port that others"),
        ({"advertise": "ams-1:0"}, "expected a host and a port that others"),
        ({"advertise": "ams 1"}, "'ams 1' is no host's name or IP address"),
        ({"discovery": StaticSeeds(["a:1"])}, "expected several, as [...]"),
        ({"discovery": ["a:1"]}, "discovery has 'a:1': expected a StaticSeeds"),
        ({"discovery": [_Busy()]}, "interval_s=0.0: expected seconds, above 0"),
        ({"redial_s": 0.0}, "redial_s=0.0: expected seconds, above 0"),
        ({"redial_s": 9.0}, "max_redial_s=0.3: expected at least redial_s=9.0"),
        ({"heartbeat_timeout_s": "1"}, "heartbeat_timeout_s='1': expected seconds"),
        ({"heartbeat_timeout_s": 0.1}, "more than heartbeat_interval_s=0.1"),
        ({"membership": None}, "membership=None: expected MembershipOptions(...)"),
    ],
)
def test_what_is_wrong_is_named(
    options: Callable[..., ClusterOptions], changed: dict[str, Any], said: str
) -> None:
    given = {"credentials": options("a").credentials} | changed
    name = given.pop("name", "a")
    with pytest.raises((TypeError, ValueError)) as caught:
        options(name, **given)
    assert said in str(caught.value)


def test_an_expired_certificate_says_nothing_of_a_name(
    options: Callable[..., ClusterOptions], authority: Authority
) -> None:
    # The others refuse it, and say why.
    expired = authority.credentials("x", days=-1)
    assert expired.own_uris() is None
    assert options("a", credentials=expired).credentials is expired


def test_a_cookie_is_not_shown(options: Callable[..., ClusterOptions]) -> None:
    assert "cookie" not in repr(options("a"))


@pytest.mark.parametrize(
    ("listen", "advertise", "port", "address"),
    [
        ("127.0.0.1:0", None, 99, "127.0.0.1:99"),
        ("[::1]:4370", None, 4370, "[::1]:4370"),
        ("0.0.0.0:4370", "ams-1.prod", 4370, "ams-1.prod:4370"),
        ("0.0.0.0:4370", "ams-1.prod:80", 4370, "ams-1.prod:80"),
        ("[::]:0", "[2001:db8::1]", 7, "[2001:db8::1]:7"),
    ],
)
def test_the_address_that_others_are_told(
    options: Callable[..., ClusterOptions],
    listen: str,
    advertise: str | None,
    port: int,
    address: str,
) -> None:
    made = options("a", listen=listen, advertise=advertise)
    assert made.advertised(port) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":1",
        "a",
        "a:",
        "a:b",
        "a:65536",
        "a:999999999999",
        "a:-1",
        "a:1 ",
        "a b:1",
        "a/b:1",
        "a..b:1",
        "-a:1",
        f"{'x' * 64}:1",
        f"{'x.' * 130}x:1",
        "é:1",
        "a\n:1",
        "::1:1",
        "[::1]",
        "[::1",
        "[::g]:1",
        "[]:1",
        "[::1]x:1",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"address "):
        parse_address(text)


@pytest.mark.parametrize("text", ["a:1", "a.b-c_d.:65535", "10.0.0.1:0", "[::1]:80"])
def test_an_address_is_shown_as_it_was_written(text: str) -> None:
    assert str(parse_address(text)) == text


def test_an_address_without_a_port_gets_the_default() -> None:
    assert parse_address("[::1]", default_port=7) == HostPort("::1", 7)
    with pytest.raises(ValueError, match="HOST:PORT"):
        parse_address("a:", default_port=7)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: StaticSeeds("a:1"), r"expected several, as \['a:1'\]"),
        (lambda: StaticSeeds(["a:0"]), "expected a port from 1 on"),
        (lambda: StaticSeeds(["a"]), "expected HOST:PORT"),
        (lambda: DnsSeeds("a b"), "no host's name"),
        (lambda: DnsSeeds("a", 0), "port=0: expected a port from 1 on"),
        (lambda: DnsSeeds("a", timeout_s=0), "timeout_s=0: expected seconds, above 0"),
        (lambda: SrvSeeds("a b"), "no host's name"),
        (lambda: SrvSeeds("a", nameservers=["ns"]), "'ns' does not appear to be"),
        (lambda: SrvSeeds("a", nameservers="::1"), "expected several"),
        (lambda: FileSeeds("x", interval_s=-1.0), "interval_s=-1.0: expected"),
    ],
)
def test_a_discovery_that_cannot_be_is_refused(
    make: Callable[[], object], said: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        make()


def test_boot_ids_rise_with_the_clock_and_without_it() -> None:
    first = next_boot(1000.0, 0)
    assert next_boot(1000.001, 0) > first
    assert next_boot(10.0, 5, last=first) == first + 1
    # Two lives of one millisecond differ by what was drawn.
    assert next_boot(1000.0, 1) != first


def test_the_last_boot_id_of_all_has_none_above_it() -> None:
    assert next_boot(1e15, 0) == MAX_BOOT
    assert next_boot(0.0, 0, last=MAX_BOOT - 1) == MAX_BOOT
    with pytest.raises(ValueError, match="expected less than"):
        next_boot(0.0, 0, last=MAX_BOOT)
