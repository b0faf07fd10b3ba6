"""The key-value store with real clients: crashes, floods, and Ctrl-C."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from argparse import ArgumentTypeError
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from atomr.otp import run_applications
from atomr.process import kill
from tests.children import or_killed
from tests.examples.loading import EXAMPLES, load
from tests.gateway.http import received

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import ModuleType

    from atomr.process import Node
    from atomr.refs import Pid

PROGRAM = EXAMPLES / "kv_store.py"


@pytest.fixture(scope="module")
def kv() -> ModuleType:
    return load("kv_store")


class Client:
    """One connection; ``say`` returns the lines of the answer."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream

    async def say(self, line: str) -> list[str]:
        await self.stream.send_all(line.encode() + b"\n")
        answer = b""
        while not answer.endswith((b"OK\n", b"FOUND\n", b"COMMAND\n", b"ERROR\n")):
            received = await self.stream.receive_some()
            if not received:
                return ["closed"]
            answer += received
        return answer.decode().splitlines()


@asynccontextmanager
async def running(kv: ModuleType) -> AsyncIterator[tuple[Node, Client, Client]]:
    """Serve two clients; afterwards nothing is left."""
    tasks_before = trio.lowlevel.current_statistics().tasks_living
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    ready, done = trio.Event(), trio.Event()
    nodes: list[Node] = []

    def note(node: Node) -> None:
        nodes.append(node)
        ready.set()

    async def serve() -> None:
        await run_applications(
            kv.applications(listener), ready=note, stop=done, handle_signals=False
        )

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await ready.wait()
        async with (
            await trio.open_tcp_stream("127.0.0.1", port) as one,
            await trio.open_tcp_stream("127.0.0.1", port) as other,
        ):
            yield nodes[0], Client(one), Client(other)
        done.set()
    assert nodes[0].processes == {}
    assert trio.lowlevel.current_statistics().tasks_living == tasks_before


def processes(node: Node, label: str) -> list[Pid]:
    return [p.pid for p in node.processes.values() if p.pid.label == label]


async def test_two_clients_share_a_bucket(kv: ModuleType) -> None:
    async with running(kv) as (_, ann, bob):
        assert await ann.say("CREATE shopping") == ["OK"]
        assert await ann.say("PUT shopping milk 1 litre") == ["OK"]
        assert await bob.say("CREATE shopping") == ["OK"]
        assert await bob.say("GET shopping milk") == ["1 litre", "OK"]
        assert await bob.say("DELETE shopping milk") == ["OK"]
        assert await ann.say("GET shopping milk") == ["NOT FOUND"]
        assert await ann.say("GET books title") == ["NOT FOUND"]
        assert await ann.say("get shopping milk") == ["UNKNOWN COMMAND"]
        assert await ann.say("") == ["UNKNOWN COMMAND"]


async def test_a_bucket_that_is_killed_costs_what_it_held_and_nothing_else(
    kv: ModuleType,
) -> None:
    async with running(kv) as (node, ann, bob):
        for bucket in ("shopping", "books"):
            await ann.say(f"CREATE {bucket}")
            await ann.say(f"PUT {bucket} key {bucket}")
        [shopping] = processes(node, "shopping")
        kill(shopping)

        # Handled after the restart, as an end comes before any request.
        assert await bob.say("CREATE shopping") == ["OK"]
        assert processes(node, "shopping") != [shopping]
        assert await ann.say("GET shopping key") == ["NOT FOUND"]
        assert await ann.say("PUT shopping key again") == ["OK"]
        assert await bob.say("GET shopping key") == ["again", "OK"]
        assert await bob.say("GET books key") == ["books", "OK"]


async def test_a_bucket_that_crashes_at_work_is_an_error_for_its_client(
    kv: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def spoiled(bucket: Any, key: str) -> None:
        await bucket.state.update(kv.spoil)

    async with running(kv) as (_, ann, bob):
        await ann.say("CREATE shopping")
        with monkeypatch.context() as patched:
            patched.setattr(kv.Bucket, "delete", spoiled)
            assert await ann.say("DELETE shopping milk") == ["ERROR"]
        assert await bob.say("CREATE shopping") == ["OK"]
        assert await ann.say("DELETE shopping milk") == ["OK"]


async def test_a_bug_costs_one_connection(
    kv: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(bucket: Any, key: str) -> None:
        raise RuntimeError("a bug in the server")

    async with running(kv) as (_, ann, bob):
        await ann.say("CREATE shopping")
        with monkeypatch.context() as patched:
            patched.setattr(kv.Bucket, "delete", broken)
            assert await ann.say("DELETE shopping milk") == ["closed"]
        assert await bob.say("DELETE shopping milk") == ["OK"]


async def test_a_line_without_an_end_is_cut_off(kv: ModuleType) -> None:
    async with running(kv) as (_, ann, bob):
        await ann.stream.send_all(b"x" * (kv.MAX_LINE_BYTES + 1))
        assert await ann.stream.receive_some() == b""
        assert await bob.say("CREATE shopping") == ["OK"]


async def test_lines_may_come_in_pieces_and_several_at_once(kv: ModuleType) -> None:
    async with running(kv) as (_, ann, bob):
        for piece in (b"CRE", b"ATE shop", b"ping\r\nPUT shopping a 1\nGET shop"):
            await ann.stream.send_all(piece)
            await trio.testing.wait_all_tasks_blocked()
        answers = b""
        while len(answers) < len(b"OK\nOK\n"):
            answers += await received(ann.stream)
        assert answers == b"OK\nOK\n"
        assert await bob.say("GET shopping a") == ["1", "OK"]
        assert await ann.say("ping a") == ["1", "OK"]


async def test_a_crash_of_the_acceptor_keeps_the_socket_and_the_clients(
    kv: ModuleType,
) -> None:
    async with running(kv) as (node, ann, bob):
        assert await ann.say("CREATE shopping") == ["OK"]
        port = ann.stream.socket.getpeername()[1]
        [acceptor] = processes(node, "accept")
        kill(acceptor)
        # It waits for its restart; who connects meanwhile waits in the socket.
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            assert await Client(stream).say("GET shopping milk") == ["NOT FOUND"]
        assert await bob.say("GET shopping milk") == ["NOT FOUND"]


def test_ctrl_c_closes_the_connections_and_ends_in_order() -> None:
    command = [sys.executable, "-W", "error", "-u", str(PROGRAM)]
    with (
        subprocess.Popen(
            [*command, "--bind", "127.0.0.1:0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as program,
        or_killed(program),
    ):
        assert program.stdout is not None
        host, _, port = program.stdout.readline().split()[2].rstrip(";").rpartition(":")
        with (
            socket.create_connection((host, int(port)), timeout=60) as ann,
            socket.create_connection((host, int(port)), timeout=60) as bob,
        ):
            for client in (ann, bob):
                client.sendall(b"CREATE shopping\n")
                assert client.recv(100) == b"OK\n"
            program.send_signal(signal.SIGINT)
            assert [ann.recv(100), bob.recv(100)] == [b"", b""]
        printed, logged = program.communicate(timeout=60)

    assert (program.returncode, printed, logged) == (0, "stopped by SIGINT\n", "")


@pytest.mark.parametrize("text", ["localhost", "localhost:80", ":80", "::1", "::1:-1"])
def test_what_is_no_address_is_refused_with_the_remedy(
    kv: ModuleType, text: str
) -> None:
    with pytest.raises(ArgumentTypeError) as caught:
        kv.Address.parse(text)

    assert str(caught.value) == f"{text!r}: expected IP:PORT, such as 127.0.0.1:4040"


def test_addresses_of_both_versions_are_understood(kv: ModuleType) -> None:
    assert kv.Address.parse("127.0.0.1:0") == kv.Address("127.0.0.1", 0)
    assert kv.Address.parse("[::1]:4040") == kv.Address("::1", 4040)


async def test_a_port_in_use_ends_the_program_with_a_sentence(kv: ModuleType) -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port = listener.socket.getsockname()[1]
        with pytest.raises(SystemExit) as caught:
            await kv.serve_until_stopped(kv.Address("127.0.0.1", port))

    assert str(caught.value).startswith(f"cannot listen on 127.0.0.1:{port}: ")
    assert "in use" in str(caught.value)
