"""What restarts when something crashes, and what is plugged into a node."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from atomr.cluster import PeerDown, PeerUp
from atomr.cluster.members.links_process import LinksProcess
from atomr.cluster.members.station import make_station
from atomr.core.child_spec import ChildSpec
from atomr.core.exits import KILL
from atomr.crdt.origin import Origin
from atomr.errors import ClusterDownError, StartError
from atomr.http2 import IncomingCall, Service
from atomr.otp import GenServer, supervision_tree
from atomr.process import current_node, exit_process, send
from tests.atomr.cluster.members.conftest import WITHIN_S, watched
from tests.atomr.http2.conftest import Get, Put, until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from atomr.cluster import ClusterOptions, Peers
    from atomr.otp import TreeNode
    from atomr.refs import Pid
    from tests.atomr.cluster.members.conftest import OpenMember


async def test_a_life_whose_port_was_taken_meanwhile_has_another_one(
    options: Callable[..., ClusterOptions],
) -> None:
    taken = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = int(taken.socket.getsockname()[1])
    made = options("a", listen="127.0.0.1:0")
    station = make_station(
        made, (), draw=random.Random(0), now=lambda: 0.0, fail=lambda _: None
    )
    station.port = port
    listeners = await LinksProcess(station)._listen()
    assert station.port == int(listeners[0].socket.getsockname()[1])
    assert station.port not in (0, port)
    for listener in listeners:
        await listener.aclose()
    # One that was named stays the one: others know it.
    station.options = options("a", listen=f"127.0.0.1:{port}")
    station.port = port
    with pytest.raises(OSError, match=f"listen='127.0.0.1:{port}': .*in use"):
        await LinksProcess(station)._listen()
    await taken.aclose()


class Keeper(GenServer):
    """Keeps what peers put, for as long as it lives."""

    def __init__(self, plug: Plug, origin: Origin) -> None:
        self._plug = plug
        plug.lives.append(origin)

    async def init(self) -> None:
        await trio.sleep(self._plug.start_s)
        self._plug.stored = {}

    def handle_info(self, message: Any) -> None:
        match message:
            case Put(key, value):
                self._plug.stored[key] = value
            case IncomingCall() as call, Get(key):
                call.reply(self._plug.stored.get(key))


@attrs.define
class Plug:
    """A service of a cluster.

    Attributes:
        name: of the service and its process.
        child_id: of its child; empty: the name.
        shares_life: as it says.
        start_s: how long its init takes.
        lives: the node's lives that its processes were started in.
        stored: what was put since the last start; None before the first.
        early: messages that came before that.
    """

    name: str = "keeper"
    child_id: str = ""
    shares_life: bool = False
    start_s: float = 0.0
    lives: list[Origin] = attrs.field(factory=list)
    stored: Any = None
    early: int = 0

    def services(self) -> Mapping[str, Service[Any]]:
        return {self.name: Service(Put | Get, tell=self._tell, call=self._call)}

    def child(self, peers: Peers) -> ChildSpec:
        return ChildSpec(
            id=self.child_id or self.name,
            start=lambda: Keeper(self, peers.origin),
            name=self.name,
        )

    def _tell(self, _: object, message: Any) -> None:
        self.early += self.stored is None
        send(self.name, message)

    def _call(self, call: IncomingCall, message: Any) -> None:
        send(self.name, (call, message))


def tree() -> TreeNode:
    """Return the processes of the node around."""
    found = supervision_tree(current_node())
    assert found is not None
    return found


def process_at(*path: str) -> Pid | None:
    """Return the pid at a place in the tree of the node around; None: it is down."""
    rows = [tree()]
    for id_ in path:
        rows = [child for child in rows[0].children if child.id == id_]
        if not rows:
            return None
    return rows[0].pid


def pid_of(*path: str) -> Pid:
    """Return the pid at a place in the tree of the node around."""
    pid = process_at(*path)
    assert pid is not None
    return pid


def drawn(row: TreeNode, depth: int = 0) -> list[str]:
    lines = [f"{'  ' * depth}{row.id} {row.behaviour}"]
    for child in row.children:
        lines += drawn(child, depth + 1)
    return lines


async def test_the_tree_is_as_its_page_says(open_member: OpenMember) -> None:
    plugs = [Plug("first"), Plug("replicator", shares_life=True), Plug("second")]
    async with open_member("a", services=plugs):
        assert drawn(tree())[1:-1] == [
            "  cluster Supervisor",
            "    life Supervisor",
            "      links LinksProcess",
            "      members MemberServer",
            "      replicator Keeper",
            "    first Keeper",
            "    second Keeper",
            "    doors Doors",
            "    discovery PlainProcess",
        ]


async def test_services_of_two_nodes_tell_and_call_each_other(
    open_member: OpenMember,
) -> None:
    async with (
        open_member("a", services=[Plug()]) as a,
        open_member("b", a.address, services=[Plug()]) as b,
    ):
        await b.wait_for(2, timeout_s=WITHIN_S)
        assert b.peers.tell(a.origin, "keeper", Put("x", 3))
        assert await b.peers.call(a.origin, "keeper", Get("x"), returns=int) == 3


async def test_no_message_comes_for_a_service_that_has_not_started(
    open_member: OpenMember, unused_port: int
) -> None:
    slow = Plug(start_s=0.4)
    seed = f"127.0.0.1:{unused_port}"
    async with open_member("b", seed) as b:
        answers: list[Any] = []

        async def ask(peer: Origin) -> None:
            b.peers.tell(peer, "keeper", Put("x", 3))
            answers.append(
                await b.peers.call(peer, "keeper", Get("x"), returns=int | None)
            )

        async with trio.open_nursery() as nursery:
            with b.peers.watch(
                lambda event: (
                    nursery.start_soon(ask, event.peer)
                    if isinstance(event, PeerUp)
                    else None
                )
            ):
                async with open_member("a", listen=seed, services=[slow]):
                    await until(lambda: answers)
        assert (answers, slow.early) == ([3], 0)


async def test_a_crashed_membership_is_a_new_life_of_the_node(
    open_member: OpenMember, caplog: pytest.LogCaptureFixture
) -> None:
    plug, tied = Plug(), Plug("tied", shares_life=True)
    async with (
        open_member("b") as b,
        open_member("a", b.address) as a,
        open_member("c", b.address, services=[plug, tied]) as c,
    ):
        for node in (a, b, c):
            await node.wait_for(3, timeout_s=WITHIN_S)
        first, port = c.origin, c._station.port
        with watched(a) as at_a, watched(b) as at_b, watched(c) as at_c:
            exit_process(pid_of("cluster", "life", "members"), KILL)
            await until(lambda: c.origin != first)
            second = c.origin
            await until(lambda: at_a[-1] == at_b[-1] == PeerUp(second))
            await c.wait_for(3, timeout_s=WITHIN_S)
        assert first < second
        assert (plug.lives, tied.lives) == ([first, second], [first, second])
        assert (c._station.port, c.peers.origin) == (port, second)
        for events in (at_a, at_b):
            # Both sides may dial at once, and one of the two links be replaced.
            assert events[2] == PeerDown(first, "left")
        assert set(at_c[2:4]) == {
            PeerDown(a.origin, "closed"),
            PeerDown(b.origin, "closed"),
        }


async def test_a_service_that_shares_the_life_takes_it_along(
    open_member: OpenMember, caplog: pytest.LogCaptureFixture
) -> None:
    plug, tied = Plug(), Plug("tied", shares_life=True)
    async with open_member("a", services=[plug, tied]) as a:
        first = a.origin
        exit_process(pid_of("cluster", "life", "tied"), KILL)
        await until(lambda: len(plug.lives) == 2)
        assert first < a.origin
        assert plug.lives == tied.lives == [first, a.origin]


async def test_a_service_that_does_not_restarts_those_after_it_alone(
    open_member: OpenMember, caplog: pytest.LogCaptureFixture
) -> None:
    one, two, three = Plug("one"), Plug("two"), Plug("three")
    async with (
        open_member("a") as a,
        open_member("b", a.address, services=[one, two, three]) as b,
    ):
        await a.wait_for(2, timeout_s=WITHIN_S)
        life, link = b.origin, a.peers.link(b.origin)
        exit_process(pid_of("cluster", "two"), KILL)
        await until(lambda: len(three.lives) == 2)
        assert [len(plug.lives) for plug in (one, two, three)] == [1, 2, 2]
        assert (b.origin, a.peers.link(life)) == (life, link)
        async with open_member("c", b.address) as c:
            # Its doors are open as before.
            await c.wait_for(3, timeout_s=WITHIN_S)


async def test_a_node_whose_seeds_are_gone_joins_again_by_whom_it_knew(
    open_member: OpenMember, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        open_member("a") as a,
        open_member("c") as c,
        open_member("b", a.address, c.address) as b,
    ):
        await b.wait_for(3, timeout_s=WITHIN_S)
        b._station.options = attrs.evolve(b._station.options, discovery=())
        first = b.origin
        exit_process(pid_of("cluster", "life", "links"), KILL)
        await until(lambda: b.origin != first)
        await b.wait_for(3, timeout_s=WITHIN_S)


async def test_what_crashes_again_and_again_ends_the_cluster(
    open_member: OpenMember, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ClusterDownError, match="GaveUp") as caught:
        async with open_member("a"):
            with trio.fail_after(WITHIN_S):
                while True:
                    doors = process_at("cluster", "doors")
                    if doors is not None:
                        exit_process(doors, KILL)
                    await trio.sleep(0.01)
    assert "cluster of 'a' ended" in str(caught.value)


async def test_two_services_of_one_name_are_refused(open_member: OpenMember) -> None:
    with pytest.raises(StartError, match="the name 'keeper' is taken"):
        async with open_member("a", services=[Plug(), Plug(child_id="other")]):
            pass


async def test_the_next_life_is_above_the_last_one_though_the_clock_went_back(
    open_member: OpenMember, tmp_path: Path
) -> None:
    file = tmp_path / "boot"
    future = 2**63
    file.write_text(f"{future}\n", encoding="ascii")
    for number in (1, 2):
        async with open_member("a", boot_file=file) as a:
            assert a.origin == Origin("a", future + number)
        assert file.read_text(encoding="ascii") == f"{future + number}\n"


@pytest.mark.parametrize("content", ["", "x", "-1", str(2**64), "\xff"])
async def test_a_boot_file_that_holds_no_boot_id_is_told_of(
    open_member: OpenMember, tmp_path: Path, content: str
) -> None:
    file = tmp_path / "boot"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(StartError, match="expected a number"):
        async with open_member("a", boot_file=file):
            pass


async def test_a_boot_file_that_cannot_be_written_is_told_of(
    open_member: OpenMember, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("none/boot")  # a long path would be cut in the error
    with pytest.raises(StartError) as caught:
        async with open_member("a", boot_file=file):
            pass
    said = f"boot_file '{file}': No such file or directory; make its folder first"
    assert said in str(caught.value)


async def test_an_address_that_is_none_of_this_machine_is_told_of(
    open_member: OpenMember,
) -> None:
    with pytest.raises(StartError) as caught:
        async with open_member("a", listen="192.0.2.1:0"):
            pass
    said = (
        "listen='192.0.2.1:0': Cannot assign requested address; listen on an address of"
        " this machine, and say as advertise= where others reach it"
    )
    assert said in str(caught.value)
