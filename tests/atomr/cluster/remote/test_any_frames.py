"""Whatever frames a peer sends, in whatever order: nothing is raised, nothing hangs."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr.cluster.remote import frames as f
from atomr.otp import call, child
from atomr.process import open_node
from tests.at_length import times
from tests.atomr.cluster.remote.servers import Add, Counter, Get
from tests.atomr.cluster.remote.test_crossing import Side, act, connect


def raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.msgpack.encode(value))


NUMBERS = st.integers(1, 6)
TARGETS: st.SearchStrategy[Any] = st.sampled_from(
    [1, 2, 3, 4, 99, "server", "nobody", "atomr.remote"]
)
TAGS = st.sampled_from(["", "Add", "Get", "Nothing", "x" * 255])
BODIES = st.one_of(
    st.recursive(
        st.none() | st.integers(-5, 5) | st.text(max_size=3) | st.binary(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["amount", "text"]), inner, max_size=2)
        ),
        max_leaves=5,
    ).map(raw),
    st.tuples(st.integers(-1, 5), st.binary(max_size=8)).map(
        lambda ext: raw(msgspec.msgpack.Ext(*ext))
    ),
)
TOLD = st.builds(
    f.Told,
    st.sampled_from(["normal", "killed", "noproc", "detailed", "error", "?"]),
    name=TAGS,
    text=st.text(max_size=3),
    tag=TAGS,
    body=BODIES,
)
FRAMES = st.one_of(
    st.builds(f.Send, TARGETS, TAGS, BODIES),
    st.builds(f.CastTo, st.sampled_from(["nobody", 99]), TAGS, BODIES),
    st.builds(f.Call, NUMBERS, st.integers(0, 3), TARGETS, TAGS, BODIES),
    st.builds(f.Reply, NUMBERS, TAGS, BODIES),
    st.builds(f.Failed, NUMBERS, st.sampled_from(["raised", "down", "x"]), TOLD),
    st.builds(f.Cancel, NUMBERS),
    st.builds(f.Signal, st.sampled_from(["nobody", 99]), NUMBERS, TOLD),
    st.builds(f.Stop, st.sampled_from(["nobody", 99]), TOLD),
    st.builds(f.Watch, NUMBERS, TARGETS),
    st.builds(f.Unwatch, NUMBERS),
    st.builds(f.Ended, NUMBERS, TOLD),
    # Not with the server: it does not trap exits, and the link will end.
    st.builds(f.LinkTo, NUMBERS, st.sampled_from([1, 2, 99])),
    st.builds(f.Unlink, NUMBERS, NUMBERS, NUMBERS),
    st.builds(f.Unlinked, NUMBERS, NUMBERS, NUMBERS),
)
ACTS = st.sampled_from(["link", "unlink", "monitor", "demonitor", "send"])
STEPS = st.lists(FRAMES | ACTS, max_size=20)


async def run(steps: list[Any]) -> None:
    async with open_node("b") as node_b, open_node("a") as node_a:
        a, b = Side("a", node_a), Side("b", node_b)
        a.other, b.other = b, a
        connect(a, b)
        for side in (a, b):
            side.remote.open(side.node, side)  # type: ignore[arg-type]
            await side.start()
        server = await node_a.start(child(Counter, name="server"))
        for step in steps:
            if isinstance(step, str):
                await act(a, step, 0, 0)
            else:
                a.remote._told(a.wire, step)  # type: ignore[arg-type]
            await trio.testing.wait_all_tasks_blocked()
        before = await call(server, Get())
        assert await call(server, Add(1)) == before + 1
        assert [p.reason for p in a.processes] == [None, None]
        a.wire.end()
        await trio.sleep(1)
        # With the link, all is gone that the peer brought about.
        for process in (*a.processes, server._process):
            assert not process.links
            assert not process.on_end
            assert not process.deferred
        assert not a.remote.life(b.origin).session


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_whatever_a_peer_says_everybody_else_goes_on(steps: list[Any]) -> None:
    trio.run(run, steps, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.slow
@settings(max_examples=times(150), deadline=None)
@given(STEPS)
def test_whatever_a_peer_says_at_length(steps: list[Any]) -> None:
    trio.run(run, steps, clock=trio.testing.MockClock(autojump_threshold=0))
