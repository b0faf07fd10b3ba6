"""Seeds by DNS: from a server of our own, which answers, lies, or says nothing."""

from __future__ import annotations

import errno
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeAlias

import dns.asyncresolver
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
import trio

from atomr.cluster import DnsSeeds, SrvSeeds
from atomr.errors import DiscoveryError

NAME = "_atomr._tcp.nodes.test"
RECORDS = (
    "20 0 4370 c.nodes.test.",
    "10 1 4370 b.nodes.test.",
    "10 9 4371 a.nodes.test.",
)

Answer: TypeAlias = Callable[[dns.message.Message], list[bytes]]


def answer(query: dns.message.Message, *records: str) -> dns.message.Message:
    made = dns.message.make_response(query)
    if records:
        made.answer.append(dns.rrset.from_text(f"{NAME}.", 10, "IN", "SRV", *records))
    return made


def whole(*records: str) -> Answer:
    return lambda query: [answer(query, *records).to_wire()]


def truncated(query: dns.message.Message) -> list[bytes]:
    made = answer(query)
    made.flags |= dns.flags.TC
    return [made.to_wire()]


def refused(code: dns.rcode.Rcode) -> Answer:
    def made(query: dns.message.Message) -> list[bytes]:
        response = answer(query)
        response.set_rcode(code)
        return [response.to_wire()]

    return made


def of_another_query(query: dns.message.Message) -> list[bytes]:
    made = answer(query, "1 1 666 evil.test.")
    made.id = query.id ^ 1
    return [made.to_wire()]


def of_another_name(query: dns.message.Message) -> list[bytes]:
    other = dns.message.make_query("other.test.", "SRV", id=query.id)
    return [dns.message.make_response(other).to_wire()]


def silence(_: dns.message.Message) -> list[bytes]:
    return []


@asynccontextmanager
async def _serve(
    udp: Answer, tcp: Answer | None = None, *, timeout_s: float = 30.0, name: str = NAME
) -> AsyncIterator[SrvSeeds]:
    """Serve DNS at one port, UDP and TCP, and yield who asks there."""
    socket, listeners = await _one_port(tcp=tcp is not None)
    port = socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_answer_datagrams, socket, udp)
        if tcp is not None:
            serve = partial(trio.serve_listeners, partial(_answer_stream, tcp))
            nursery.start_soon(serve, listeners)
        yield SrvSeeds(name, nameservers=[f"127.0.0.1:{port}"], timeout_s=timeout_s)
        nursery.cancel_scope.cancel()
    socket.close()


async def _one_port(
    *, tcp: bool
) -> tuple[trio.socket.SocketType, list[trio.SocketListener]]:
    """Return a port of UDP, and its number's of TCP, which somebody else may have."""
    while True:
        socket = trio.socket.socket(type=trio.socket.SOCK_DGRAM)
        await socket.bind(("127.0.0.1", 0))
        if not tcp:
            return socket, []
        port = socket.getsockname()[1]
        try:
            return socket, await trio.open_tcp_listeners(port, host="127.0.0.1")
        except OSError as error:
            socket.close()
            if error.errno != errno.EADDRINUSE:
                raise


async def _answer_datagrams(socket: trio.socket.SocketType, made: Answer) -> None:
    while True:
        wire, sender = await socket.recvfrom(4096)
        for datagram in made(dns.message.from_wire(wire)):
            await socket.sendto(datagram, sender)


async def _answer_stream(made: Answer, stream: trio.SocketStream) -> None:
    async with stream:
        wire = await stream.receive_some()
        while len(wire) < 2 or len(wire) < 2 + int.from_bytes(wire[:2], "big"):
            wire += await stream.receive_some()
        for answered in made(dns.message.from_wire(wire[2:])):
            await stream.send_all(answered)


def framed(made: Answer, cut: int | None = None) -> Answer:
    """Put the length before an answer, and send so much of it."""

    def frame(query: dns.message.Message) -> list[bytes]:
        return [(len(wire).to_bytes(2, "big") + wire)[:cut] for wire in made(query)]

    return frame


async def test_the_best_priority_and_the_greatest_weight_come_first() -> None:
    async with _serve(whole(*RECORDS)) as seeds:
        assert await seeds.find() == (
            "a.nodes.test:4371",
            "b.nodes.test:4370",
            "c.nodes.test:4370",
        )


async def test_a_name_may_end_with_a_dot() -> None:
    async with _serve(whole(*RECORDS), name=f"{NAME}.") as seeds:
        assert len(await seeds.find()) == 3


async def test_a_truncated_answer_is_asked_for_by_tcp() -> None:
    many = [f"1 1 4370 n{number:03}.nodes.test." for number in range(500)]
    async with _serve(truncated, framed(whole(*many))) as seeds:
        found = await seeds.find()
    assert (len(found), found[0]) == (500, "n000.nodes.test:4370")


async def test_a_service_that_says_that_it_is_none_has_no_seeds() -> None:
    async with _serve(whole("0 0 0 .")) as seeds:
        assert await seeds.find() == ()


@pytest.mark.parametrize(
    ("udp", "tcp"),
    [
        pytest.param(silence, None, id="silence"),
        pytest.param(lambda _: [b""], None, id="an empty datagram"),
        pytest.param(lambda _: [b"\x00\x01what"], None, id="garbage"),
        pytest.param(of_another_query, None, id="the answer to another query"),
        pytest.param(of_another_name, None, id="another name's answer"),
        pytest.param(whole(), None, id="no such record"),
        pytest.param(refused(dns.rcode.NXDOMAIN), None, id="no such name"),
        pytest.param(refused(dns.rcode.SERVFAIL), None, id="the server fails"),
        pytest.param(refused(dns.rcode.REFUSED), None, id="the server refuses"),
        pytest.param(truncated, None, id="truncated and nobody at TCP"),
        pytest.param(truncated, silence, id="TCP closes at once"),
        pytest.param(truncated, framed(whole(*RECORDS), 30), id="TCP closes early"),
        pytest.param(truncated, framed(of_another_query), id="another one's by TCP"),
    ],
)
async def test_what_is_no_answer_is_a_failure_in_time(
    udp: Answer, tcp: Answer | None
) -> None:
    async with _serve(udp, tcp, timeout_s=0.3) as seeds:
        with trio.fail_after(10.0), pytest.raises(DiscoveryError) as caught:
            await seeds.find()
    assert str(caught.value).startswith(f"discovery by DNS, SRV of {NAME}: ")


async def test_nobody_may_answer_for_the_server_first() -> None:
    def both(query: dns.message.Message) -> list[bytes]:
        return [*of_another_query(query), *whole(*RECORDS)(query)]

    async with _serve(both) as seeds:
        found = await seeds.find()
    assert "evil.test:666" not in found
    assert len(found) == 3


async def test_a_wait_for_an_answer_can_be_cancelled() -> None:
    async with _serve(silence, timeout_s=60.0) as seeds:
        with trio.move_on_after(0.05) as scope, trio.fail_after(10.0):
            await seeds.find()
    assert scope.cancelled_caught


async def test_the_systems_settings_are_not_read_in_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    readers: list[int] = []

    class Noted(dns.asyncresolver.Resolver):
        def __init__(self) -> None:
            readers.append(threading.get_ident())
            raise OSError("none are here")

    monkeypatch.setattr(dns.asyncresolver, "Resolver", Noted)
    with pytest.raises(DiscoveryError, match="none are here"):
        await SrvSeeds(NAME).find()
    assert len(readers) == 1
    assert readers[0] != threading.get_ident()


# --- the system's resolver ------------------------------------------------------------


async def test_addresses_are_those_of_the_systems_resolver() -> None:
    found = await DnsSeeds("localhost", 4370).find()
    assert "127.0.0.1:4370" in found
    assert list(found) == sorted(set(found))


async def test_an_ip_address_is_itself() -> None:
    assert await DnsSeeds("::1", 80).find() == ("[::1]:80",)


async def test_a_name_that_is_not_there_is_a_failure() -> None:
    with (
        trio.fail_after(30.0),
        pytest.raises(DiscoveryError, match=r"nowhere\.invalid"),
    ):
        await DnsSeeds("nowhere.invalid").find()


async def test_a_resolver_that_hangs_is_not_waited_for() -> None:
    with pytest.raises(DiscoveryError, match="no answer in 1e-09 s"):
        await DnsSeeds("localhost", timeout_s=1e-9).find()
