"""Registry and PubSub."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, TypeAlias

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from atomr.core.exits import KILLED, NORMAL, SHUTDOWN
from atomr.core.messages import Down
from atomr.core.registry_table import RegistryTable
from atomr.errors import (
    AlreadyStartedError,
    NameTakenError,
    NoProcessError,
    NotAProcessError,
    StartError,
)
from atomr.otp import (
    From,
    GenServer,
    Keys,
    PubSub,
    Registry,
    RegistryRef,
    Reply,
    Restart,
    Supervisor,
    call,
    cast,
    child,
)
from atomr.process import (
    Node,
    exit_process,
    kill,
    monitor,
    receive,
    self_pid,
    send,
    spawn,
    wait_exit,
)

if TYPE_CHECKING:
    from atomr.refs import Pid

CleanNode: TypeAlias = Callable[[], AbstractAsyncContextManager[Node]]

ROOMS: RegistryRef[str, int] = RegistryRef("rooms")


async def start(node: Node, keys: Keys = Keys.UNIQUE) -> Pid:
    spec = child(
        lambda: Registry(keys), id="rooms", name="rooms", restart=Restart.TEMPORARY
    )
    return await node.start(spec)


def holder(*keys: str, value: int = 0) -> Pid:
    async def hold() -> None:
        for key in keys:
            ROOMS.register(key, value)
        await trio.sleep_forever()

    return spawn(hold)


async def test_lookup_finds_who_registered_and_with_what(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        await start(node)
        pid = holder("a", "b", value=3)
        await trio.testing.wait_all_tasks_blocked()
        assert ROOMS.lookup("a") == ((pid, 3),)
        assert ROOMS.lookup("c") == ()
        assert (ROOMS.whereis("b"), ROOMS.whereis("c")) == (pid, None)
        assert ROOMS.keys(pid) == ("a", "b")
        assert ROOMS.values("a", pid) == (3,)
        assert ROOMS.count() == 2
        assert ROOMS.select(lambda key, _pid, _value: key > "a") == (("b", pid, 3),)


async def test_a_unique_key_is_refused_to_a_second_and_to_the_same(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        await start(node)
        pid = holder("a")

        async def late() -> None:
            with pytest.raises(NameTakenError, match=r"rooms\['a'\]") as caught:
                ROOMS.register("a", 1)
            assert caught.value.pid is pid
            ROOMS.register("b", 1)
            with pytest.raises(NameTakenError):
                ROOMS.register("b", 2)

        await trio.testing.wait_all_tasks_blocked()
        assert await wait_exit(spawn(late)) is NORMAL


async def test_duplicate_keys_keep_each_entry(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        await start(node, Keys.DUPLICATE)
        first = holder("a", "a", value=1)
        await trio.testing.wait_all_tasks_blocked()
        second = holder("a", value=2)
        await trio.testing.wait_all_tasks_blocked()
        assert ROOMS.lookup("a") == ((first, 1), (first, 1), (second, 2))
        assert ROOMS.whereis("a") is first
        got: list[object] = []
        ROOMS.dispatch("a", got.append)
        ROOMS.dispatch("nothing", got.append)
        assert got == [((first, 1), (first, 1), (second, 2))]
        kill(first)
        await trio.testing.wait_all_tasks_blocked()
        assert ROOMS.lookup("a") == ((second, 2),)


async def test_entries_are_gone_before_anybody_hears_of_the_end(
    clean_node: CleanNode, schedule: int
) -> None:
    async with clean_node() as node:
        await start(node)
        pid = holder("a", "b")
        await trio.testing.wait_all_tasks_blocked()

        async def watch() -> None:
            monitor(pid)
            kill(pid)
            down = await receive()
            assert isinstance(down, Down)
            assert ROOMS.lookup("a") == ()
            ROOMS.register("a", 9)
            assert ROOMS.whereis("a") is self_pid()

        assert await wait_exit(spawn(watch)) is NORMAL
        assert ROOMS.count() == 0


async def test_unregister_and_update_value_act_on_ones_own(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        await start(node)
        holder("other")

        async def act() -> None:
            await trio.testing.wait_all_tasks_blocked()
            assert not ROOMS.unregister("other")
            with pytest.raises(KeyError):
                ROOMS.update_value("other", lambda value: value + 1)
            ROOMS.register("own", 1)
            assert ROOMS.update_value("own", lambda value: value + 1) == 2
            assert ROOMS.lookup("own") == ((self_pid(), 2),)
            assert ROOMS.unregister("own")
            assert not ROOMS.unregister("own")

        assert await wait_exit(spawn(act)) is NORMAL
        assert ROOMS.whereis("other") is not None


async def test_values_of_duplicate_keys_cannot_be_updated(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        await start(node, Keys.DUPLICATE)

        async def act() -> None:
            ROOMS.register("own", 1)
            with pytest.raises(ValueError, match="repeat"):
                ROOMS.update_value("own", lambda value: value)

        assert await wait_exit(spawn(act)) is NORMAL


async def test_metadata_belongs_to_the_registry(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        await start(node)
        assert ROOMS.get_meta("limit", 5) == 5
        ROOMS.put_meta("limit", 7)
        assert ROOMS.get_meta("limit") == 7
        ROOMS.delete_meta("limit")
        ROOMS.delete_meta("limit")
        assert ROOMS.get_meta("limit") is None


async def test_what_is_not_there_says_so(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        with pytest.raises(NoProcessError, match="rooms"):
            ROOMS.lookup("a")
        await start(node)
        with pytest.raises(NotAProcessError):
            ROOMS.register("a", 1)


class Room(GenServer):
    """Tells who it is, and whether it was found in its init."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.found: Pid | None = None

    def init(self) -> None:
        self.found = ROOMS.whereis("lobby")
        if self.fails:
            raise ValueError("no room")

    def handle_call(self, request: object, from_: From) -> Reply:
        return Reply((self_pid(), self.found))

    def handle_cast(self, message: object) -> None:
        raise ValueError("asked to")


async def test_via_names_a_server_from_before_its_init_on(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    lobby = ROOMS.via("lobby", value=4)
    async with clean_node() as node:
        await start(node)
        top = await node.start(Supervisor([child(Room, name=lobby)]))
        pid = ROOMS.whereis("lobby")
        assert pid is not None
        assert ROOMS.lookup("lobby") == ((pid, 4),)
        assert await call(lobby, "who") == (pid, pid)
        with pytest.raises(AlreadyStartedError):
            await node.start(child(Room, name=lobby))
        cast(lobby, "crash")
        await trio.testing.wait_all_tasks_blocked()
        again = ROOMS.whereis("lobby")
        assert again is not None
        assert again is not pid
        exit_process(top, SHUTDOWN)


async def test_a_failed_init_frees_the_name(clean_node: CleanNode) -> None:
    lobby = ROOMS.via("lobby")
    async with clean_node() as node:
        await start(node)
        with pytest.raises(StartError, match="no room"):
            await node.start(child(lambda: Room(fails=True), id="room", name=lobby))
        assert ROOMS.whereis("lobby") is None
        with pytest.raises(NoProcessError):
            await call(lobby, "who")


async def test_the_registered_end_with_a_registry_that_is_killed(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        registry = await start(node)
        pid = holder("a")
        await trio.testing.wait_all_tasks_blocked()
        kill(registry)
        assert await wait_exit(pid) is KILLED


async def test_a_registry_outlives_the_crash_of_those_in_it(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        await start(node)
        await node.start(
            child(Room, name=ROOMS.via("lobby"), restart=Restart.TEMPORARY)
        )
        cast(ROOMS.via("lobby"), "crash")
        await trio.testing.wait_all_tasks_blocked()
        assert ROOMS.count() == 0


NEWS: PubSub[str] = PubSub("news")


async def test_a_broadcast_reaches_each_subscription_once(
    clean_node: CleanNode,
) -> None:
    """[Phoenix.PubSub.subscribe/3] Who subscribed twice gets a message twice; a
      subscription ends with its process.
    [Phoenix.PubSub.broadcast/3] Each subscriber of the topic gets the message, and
      nobody else.
    [Phoenix.PubSub.broadcast_from/4] All but the caller.
    [Phoenix.PubSub.unsubscribe/2] Undoes all subscriptions of the caller to the topic.
    [Phoenix.PubSub.broadcast/3] differs: it tells how many messages were sent. Phoenix
      tells that there was no error.
    """
    got: dict[str, list[object]] = defaultdict(list)

    def subscriber(name: str, *topics: str) -> Pid:
        async def listen() -> None:
            for topic in topics:
                NEWS.subscribe(topic, metadata=name)
            while True:
                message = await receive()
                if message == "unsubscribe":
                    assert NEWS.unsubscribe("weather")
                elif message == "tell others":
                    assert NEWS.broadcast_from("weather", "from one") == 1
                else:
                    got[name].append(message)

        return spawn(listen)

    async with clean_node() as node:
        await node.start(child(PubSub.registry, id="news", name="news"))
        once, twice = (
            subscriber("once", "weather"),
            subscriber("twice", "weather", "x", "x"),
        )
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(NEWS.subscribers("weather"), key=str) == sorted(
            [(once, "once"), (twice, "twice")], key=str
        )
        assert NEWS.broadcast("weather", "rain") == 2
        assert NEWS.broadcast("x", "y") == 2
        assert NEWS.broadcast("nobody", "z") == 0
        await trio.testing.wait_all_tasks_blocked()
        assert got == {"once": ["rain"], "twice": ["rain", "y", "y"]}
        send(once, "tell others")
        await trio.testing.wait_all_tasks_blocked()
        assert got["twice"][-1] == "from one"
        send(once, "unsubscribe")
        await trio.testing.wait_all_tasks_blocked()
        assert NEWS.broadcast("weather", "sun") == 1
        kill(twice)
        await trio.testing.wait_all_tasks_blocked()
        assert NEWS.broadcast("weather", "snow") == 0
        assert got["once"] == ["rain"]


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["add", "drop", "drop_owner"]),
        st.sampled_from("ab"),
        st.sampled_from([1, 2]),
        st.integers(0, 3),
    )
)


@given(OPERATIONS)
def test_the_table_says_what_a_list_of_entries_says(
    operations: list[tuple[str, str, int, int]],
) -> None:
    table: RegistryTable[str, int, int] = RegistryTable()
    model: list[tuple[str, int, int]] = []
    for operation, key, owner, value in operations:
        if operation == "add":
            table.add(key, owner, value)
            model.append((key, owner, value))
        elif operation == "drop":
            gone = [e for e in model if e[:2] == (key, owner)]
            assert table.drop(key, owner) == len(gone)
            model = [e for e in model if e[:2] != (key, owner)]
        else:
            table.drop_owner(owner)
            model = [e for e in model if e[1] != owner]
        assert sorted(table.entries()) == sorted(model)
        assert len(table) == len(model)
        for owner_ in (1, 2):
            held = {e[0] for e in model if e[1] == owner_}
            assert set(table.keys(owner_)) == held
            assert table.owns_any(owner_) is bool(held)
        for key_ in "ab":
            expected = [(o, v) for k, o, v in model if k == key_]
            assert sorted(table.lookup(key_)) == sorted(expected)
