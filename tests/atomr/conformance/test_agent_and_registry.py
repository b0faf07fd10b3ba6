"""Agent and Registry, as Elixir documents them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from atomr.core.exits import KILLED, NORMAL
from atomr.errors import (
    CallTimeoutError,
    NameTakenError,
    NoProcessError,
    ServerDownError,
    StartError,
)
from atomr.otp import (
    Agent,
    AgentRef,
    Keys,
    Registry,
    RegistryRef,
    Restart,
    child,
    sys,
)
from atomr.process import (
    Node,
    kill,
    monitor,
    receive,
    self_pid,
    send,
    spawn,
    unlink,
    wait_exit,
)
from tests.atomr.conformance.kit import CleanNode, Kind, Log, settle, start

if TYPE_CHECKING:
    from atomr.refs import Pid

Clock = trio.testing.MockClock
X = Restart.TEMPORARY


async def test_an_agent_runs_each_function_in_itself_one_at_a_time(
    clean_node: CleanNode, autojump_clock: Clock, schedule: int, way: str
) -> None:
    """[Agent.start_link/2] The function that makes the state runs in the agent; the
      starter waits for it, and gets its failure.
    [Agent.get/3] The function runs in the agent, and its result is returned; the state
      stays.
    [Agent.update/3] The state becomes what the function returns.
    [Agent.get_and_update/3] A value for the caller and the next state, in one step.
    [Agent.cast/2] The state changes some time later; calls that follow see it.
    [Agent.stop/3] Stops it, and waits for the end.
    """
    seen: list[Pid] = []

    def note(state: int) -> int:
        seen.append(self_pid())
        return state

    async with clean_node() as node:

        def make() -> int:
            return note(1)

        with pytest.raises(StartError, match="ZeroDivisionError"):
            await node.start(child(Agent.of(lambda: 1 // 0), id="bad"))
        pid = await node.start(child(Agent.of(make), id="agent", restart=X))
        agent = AgentRef[int](pid)
        assert await agent.get(note) == 1
        assert await agent.get(lambda state: state + 41) == 42
        assert await agent.get(note) == 1
        await agent.update(lambda state: note(state) + 1)
        assert await agent.get_and_update(lambda s: ("old", note(s) * 10)) == "old"
        agent.cast(lambda state: note(state) + 2)
        assert await agent.get(note) == 22
        assert seen == [pid] * len(seen)

        async def add() -> None:
            await agent.update(lambda state: state + 1)

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(add)
        assert await agent.get(note) == 122
        await agent.stop()
        with pytest.raises(NoProcessError):
            await agent.get(note)


async def test_an_agent_function_that_raises_ends_the_agent(
    clean_node: CleanNode, autojump_clock: Clock, schedule: int, way: str
) -> None:
    """[Agent] A function that fails ends the agent, and with it the call.
    [Agent.get/3] A call that finds it busy fails after its timeout, 5 s by default.
    """
    async with clean_node() as node:
        pid = await node.start(child(Agent.of(dict), restart=X, id="agent"))
        agent = AgentRef[dict[str, int]](pid)
        await sys.suspend(pid)
        with pytest.raises(CallTimeoutError):
            await agent.get(len)
        assert trio.current_time() == 5.0
        await sys.resume(pid)
        with pytest.raises(ServerDownError) as caught:
            await agent.get(lambda state: state["missing"])
        assert isinstance(caught.value.reason, KeyError)


class World:
    """A registry and plain processes that do what they are sent."""

    def __init__(self, node: Node, ref: RegistryRef[str, Any]) -> None:
        self.node = node
        self.ref = ref
        self.results: Log = []

    async def member(self, *jobs: Any) -> Pid:
        """Start a process that runs functions; it has run these."""

        async def run() -> None:
            while True:
                job: Any = await receive()
                try:
                    self.results.append(job())
                except (NameTakenError, KeyError, ValueError) as error:
                    self.results.append(type(error))

        pid = spawn(run)
        await self.tell(pid, *jobs)
        return pid

    async def tell(self, pid: Pid, *jobs: Any) -> Log:
        """Run functions in a process; return what they returned."""
        self.results = []
        for job in jobs:
            send(pid, job)
        await settle()
        return self.results


async def world(node: Node, keys: Keys) -> World:
    await node.start(child(partial(Registry, keys), id="r", name="r", restart=X))
    return World(node, RegistryRef("r"))


@pytest.mark.parametrize("keys", Keys)
async def test_registered_keys_by_kind(
    clean_node: CleanNode, schedule: int, keys: Keys
) -> None:
    """[Registry.register/3] A unique key is refused while a live process holds it, also
      to that process; a duplicate key is not.
    [Registry.lookup/2] Pid and value of each that holds the key; nothing when nobody
      does.
    [Registry.keys/2] The keys of a process.
    [Registry.values/3] The values of a process under a key.
    [Registry.count/1] The number of entries.
    [Registry.update_value/3] For unique keys that the caller holds.
    [Registry.keys/2] differs: each key is told once. Elixir repeats a duplicate key
      that a process holds several times.
    """
    async with clean_node() as node:
        w = await world(node, keys)
        ref = w.ref
        one, two = await w.member(), await w.member()
        register = partial(ref.register, "k")
        first = await w.tell(one, partial(register, 1), partial(register, 2))
        second = await w.tell(two, partial(register, 3))
        await w.tell(two, partial(ref.register, "other", 4))
        updated = await w.tell(one, lambda: ref.update_value("k", lambda v: v + 10))
        missing = await w.tell(one, lambda: ref.update_value("other", lambda v: v))
        taken = NameTakenError
        if keys is Keys.UNIQUE:
            assert (first, second, updated) == ([None, taken], [taken], [11])
            assert (ref.lookup("k"), missing) == (((one, 11),), [KeyError])
            assert (ref.count(), ref.keys(two)) == (2, ("other",))
            assert ref.values("k", one) == (11,)
        else:
            assert (first, second) == ([None, None], [None])
            assert (updated, missing) == ([ValueError], [ValueError])
            assert ref.lookup("k") == ((one, 1), (one, 2), (two, 3))
            assert (ref.count(), ref.keys(two)) == (4, ("k", "other"))
            assert ref.values("k", one) == (1, 2)
        assert (ref.lookup("nothing"), ref.keys(spawn(trio.sleep_forever))) == ((), ())


@pytest.mark.parametrize("keys", Keys)
async def test_entries_end_with_their_process_and_before_anybody_hears_of_it(
    clean_node: CleanNode, schedule: int, keys: Keys
) -> None:
    """[Registry] Entries of a process are removed when it ends.
    [Registry] differs: the entries of a process are gone before anybody is told of the
      end. In Elixir the table is cleaned some time later, so that a lookup may find the
      dead.
    """
    seen: Log = []
    async with clean_node() as node:
        w = await world(node, keys)
        one = await w.member(partial(w.ref.register, "k", 1))

        async def watch() -> None:
            monitor(one)
            await receive()
            seen.append((w.ref.lookup("k"), w.ref.count(), w.ref.keys(one)))

        spawn(watch)
        await settle()
        kill(one)
        await settle()
    assert seen == [((), 0, ())]


async def test_unregister_frees_a_key_and_the_last_one_ends_the_link(
    clean_node: CleanNode, schedule: int
) -> None:
    """[Registry.unregister/2] Removes the caller's entries of the key only, and does
      nothing when there are none.
    [Registry.unregister/2] With its last key the process is no longer linked with the
      registry.
    [Registry] A process that is registered ends with its registry.
    """
    async with clean_node() as node:
        w = await world(node, Keys.DUPLICATE)
        ref = w.ref
        jobs = [partial(ref.register, key, 1) for key in "aab"]
        one, two = await w.member(*jobs), await w.member(*jobs)
        let_go = partial(ref.unregister, "a")
        assert await w.tell(one, let_go, let_go) == [True, False]
        assert ref.lookup("a") == ((two, 1), (two, 1))
        assert await w.tell(one, partial(ref.unregister, "b")) == [True]
        processes = [node.processes[pid.number] for pid in (one, two)]
        pid = node.whereis("r")
        assert pid is not None
        kill(pid)
        await settle()
        assert [p.reason for p in processes] == [None, KILLED]


async def test_dispatch_and_select_see_all_entries(
    clean_node: CleanNode, schedule: int
) -> None:
    """[Registry.dispatch/3] The function gets all entries of the key, once, and is not
      called when there are none.
    [Registry.select/2] The entries that match.
    [Registry.put_meta/3] Metadata belongs to the registry.
    """
    got: Log = []
    async with clean_node() as node:
        w = await world(node, Keys.DUPLICATE)
        one = await w.member(partial(w.ref.register, "k", 1))
        two = await w.member(partial(w.ref.register, "k", 2))
        w.ref.dispatch("k", got.append)
        w.ref.dispatch("nothing", got.append)
        assert got == [((one, 1), (two, 2))]
        assert w.ref.select(lambda _k, _p, value: value > 1) == (("k", two, 2),)
        w.ref.put_meta("m", 1)
        assert (w.ref.get_meta("m"), w.ref.get_meta("n", 2)) == (1, 2)
        w.ref.delete_meta("m")
        assert w.ref.get_meta("m") is None


async def test_the_end_of_the_registered_does_not_end_the_registry(
    clean_node: CleanNode, schedule: int, kind: Kind
) -> None:
    """[Registry] The registry outlives all who are registered, however they end."""
    async with clean_node() as node:
        w = await world(node, Keys.UNIQUE)
        for n in range(5):
            server = await start(node, kind, name=w.ref.via(str(n)))
            kill(server)
        await settle()
        assert (w.ref.count(), node.whereis("r") is not None) == (0, True)


async def test_unlinking_from_a_registry_by_hand_is_allowed(
    clean_node: CleanNode, schedule: int
) -> None:
    """[Registry] The link of a registered process is a link like any other."""
    async with clean_node() as node:
        w = await world(node, Keys.UNIQUE)
        pid = node.whereis("r")
        assert pid is not None

        async def free() -> None:
            w.ref.register("k", 1)
            unlink(pid)
            kill(pid)
            await trio.lowlevel.checkpoint()

        assert await wait_exit(spawn(free)) is NORMAL
