"""A key-value store over TCP: buckets, found by name, that may crash.

    python examples/kv_store.py                         # shows what it can do
    python examples/kv_store.py --bind 127.0.0.1:4040   # serves until Ctrl-C

It is the program that docs/tutorial builds, in one file.  A bucket is an agent
under a dynamic supervisor, and has its name in a registry.  Each connection is
a task.  There are two applications, and the server needs the store: it starts
after it and stops before it.  What a crashed bucket held is lost; its name,
the other buckets and all connections are not.
"""

from __future__ import annotations

import argparse
import logging
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, TypeAlias

import attrs
import trio

from atomr.errors import (
    AlreadyStartedError,
    CallError,
    NoProcessError,
    ServerDownError,
    StartError,
)
from atomr.otp import (
    Agent,
    AgentRef,
    Application,
    DynamicSupervisor,
    Registry,
    RegistryRef,
    Restart,
    Strategy,
    Supervisor,
    Task,
    TaskSupervisor,
    child,
    run_applications,
    start_child,
    start_task,
)

if TYPE_CHECKING:
    from atomr.process import Node

BUCKETS = "buckets"
CONNECTIONS = "connections"
NAMES: RegistryRef[str, None] = RegistryRef("names")
MAX_LINE_BYTES = 4096

State: TypeAlias = dict[str, str]

# --- the store ----------------------------------------------------------------------


class Bucket:
    """Talks to a bucket by its name, whichever process has that name now."""

    def __init__(self, name: str) -> None:
        self.state: AgentRef[State] = AgentRef(NAMES.via(name))

    async def get(self, key: str) -> str | None:
        """Return the value of a key; None: there is none."""
        return await self.state.get(lambda state: state.get(key))

    async def put(self, key: str, value: str) -> None:
        """Give a key a value."""
        await self.state.update(lambda state: {**state, key: value})

    async def delete(self, key: str) -> None:
        """Remove a key."""
        await self.state.update(
            lambda state: {k: v for k, v in state.items() if k != key}
        )


async def create(name: str) -> None:
    """Make a bucket, unless it is there."""
    spec = child(Agent.of(State), id=name, name=NAMES.via(name))
    with suppress(AlreadyStartedError):
        await start_child(BUCKETS, spec)


def buckets() -> DynamicSupervisor:
    """Return the supervisor of the buckets; of many, some may crash at any time."""
    return DynamicSupervisor(max_restarts=100, max_seconds=1.0)


def store() -> Supervisor:
    """Return the store's tree; the buckets need the names."""
    return Supervisor(
        [
            child(Registry, id=NAMES.name, name=NAMES.name),
            child(buckets, name=BUCKETS),
        ],
        strategy=Strategy.REST_FOR_ONE,
    )


# --- the protocol -------------------------------------------------------------------


async def answer(line: str) -> str:
    """Do what a line says, and return what its client is told.

    A bucket may end at any time, also under our hands, and the client is told.
    Any other error is a bug: it is logged, and costs one connection.
    """
    try:
        return await run(line)
    except NoProcessError:
        return "NOT FOUND"
    except (CallError, StartError):
        return "ERROR"


async def run(line: str) -> str:
    """Run one command."""
    match line.split(maxsplit=3):
        case ["CREATE", name]:
            await create(name)
        case ["PUT", name, key, value]:
            await Bucket(name).put(key, value)
        case ["GET", name, key]:
            found = await Bucket(name).get(key)
            return "NOT FOUND" if found is None else f"{found}\nOK"
        case ["DELETE", name, key]:
            await Bucket(name).delete(key)
        case _:
            return "UNKNOWN COMMAND"
    return "OK"


# --- the server ---------------------------------------------------------------------


async def accept(listener: trio.SocketListener) -> None:
    """Start a task for each connection, for ever."""
    while True:
        stream = await listener.accept()
        try:
            start_task(CONNECTIONS, serve, stream)
        except StartError:
            await trio.aclose_forcefully(stream)  # there are too many


async def serve(stream: trio.SocketStream) -> None:
    """Answer the lines of one client, until it is gone."""
    received = b""
    async with stream:
        # A client that leaves without a word is no error of ours.
        with suppress(trio.BrokenResourceError):
            while chunk := await stream.receive_some():
                *lines, received = (received + chunk).split(b"\n")
                for line in lines:
                    reply = await answer(line.decode(errors="replace").strip())
                    await stream.send_all(f"{reply}\n".encode())
                if len(received) > MAX_LINE_BYTES:
                    return


def connections() -> TaskSupervisor:
    """Return the supervisor of the connections."""
    return TaskSupervisor(max_children=1000)


def server(listener: trio.SocketListener) -> Supervisor:
    """Return the server's tree.

    The socket was opened before, and outlives a crash of ``accept``.
    """
    return Supervisor(
        [
            child(connections, name=CONNECTIONS),
            Task.child(accept, listener, restart=Restart.PERMANENT, backoff_s=0.1),
        ],
        strategy=Strategy.REST_FOR_ONE,
    )


# --- the program --------------------------------------------------------------------


@attrs.frozen
class Address:
    """Where to listen; port 0 is any that is free."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Return the address that ``IP:PORT`` says."""
        host, _, port = text.rpartition(":")
        with suppress(ValueError):
            # A name may mean several addresses, and we listen on one.
            ip = ip_address(host.strip("[]"))
            if int(port) in range(65536):
                return cls(str(ip), int(port))
        expected = f"{text!r}: expected IP:PORT, such as 127.0.0.1:4040"
        raise argparse.ArgumentTypeError(expected)


def applications(listener: trio.SocketListener) -> list[Application]:
    """Return what the program runs; the order follows from who needs whom."""
    return [
        Application("kv_server", start=partial(server, listener), depends_on=("kv",)),
        Application("kv", start=store),
    ]


async def serve_until_stopped(address: Address) -> None:
    """Serve until the first Ctrl-C or SIGTERM, then stop in order."""
    try:
        [listener] = await trio.open_tcp_listeners(address.port, host=address.host)
    except OSError as error:
        where = f"{address.host}:{address.port}"
        raise SystemExit(f"cannot listen on {where}: {error.strerror}") from error
    async with listener:

        def ready(_: Node) -> None:
            host, port = listener.socket.getsockname()[:2]
            print(f"serving on {host}:{port}; Ctrl-C stops", flush=True)

        received = await run_applications(applications(listener), ready=ready)
    print("stopped by", "nobody" if received is None else received.name)


class Client:
    """Sends a line, and prints what it sent and what came back."""

    def __init__(self, who: str, stream: trio.SocketStream) -> None:
        self.who = who
        self.stream = stream

    async def say(self, line: str) -> None:
        """Send one command."""
        await self.stream.send_all(f"{line}\n".encode())
        reply = await self.stream.receive_some()
        print(f"{self.who}: {line} ->", *reply.decode().split("\n")[:-1])


def spoil(state: State) -> State:
    """Be the bug that every program has."""
    raise ValueError(f"a bug met {len(state)} items")


async def show(port: int, done: trio.Event) -> None:
    """Let two clients use the store, and one bucket crash."""
    async with (
        await trio.open_tcp_stream("127.0.0.1", port) as one,
        await trio.open_tcp_stream("127.0.0.1", port) as other,
    ):
        ann, bob = Client("ann", one), Client("bob", other)
        await ann.say("CREATE shopping")
        await ann.say("PUT shopping milk 1 litre")
        await bob.say("GET shopping milk")
        await bob.say("DELETE shopping milk")
        await ann.say("GET shopping milk")
        await bob.say("FETCH shopping milk")

        await ann.say("CREATE books")
        await ann.say("PUT books title Emma")
        await ann.say("PUT shopping eggs 12")
        with suppress(ServerDownError):
            await Bucket("shopping").state.update(spoil)
        print("the shopping bucket has crashed")
        await ann.say("GET shopping eggs")
        await bob.say("CREATE shopping")
        await bob.say("PUT shopping eggs 6")
        await ann.say("GET shopping eggs")
        await ann.say("GET books title")
    done.set()


async def demonstrate() -> None:
    """Serve two clients of our own, and end."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    done = trio.Event()
    async with listener, trio.open_nursery() as nursery:

        def ready(_: Node) -> None:
            nursery.start_soon(show, listener.socket.getsockname()[1], done)

        await run_applications(applications(listener), ready=ready, stop=done)
    print("stopped")


def main() -> None:
    """Read the command line, and run."""
    parser = argparse.ArgumentParser(description="A key-value store over TCP.")
    parser.add_argument("--bind", type=Address.parse, metavar="IP:PORT")
    address = parser.parse_args().bind
    logging.basicConfig(format="%(name)s %(levelname)s: %(message)s")
    if address is None:
        trio.run(demonstrate)
    else:
        trio.run(serve_until_stopped, address)


if __name__ == "__main__":
    main()
