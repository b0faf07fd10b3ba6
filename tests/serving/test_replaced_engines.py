"""An engine in a process of its own is replaced: real processes."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from atomr_infer.errors import InferenceError
from atomr_infer.model.deployment import Deployment, RetryPolicy, Serving, Timeouts
from atomr_infer.model.failover import Swap
from tests.gateway.http import until
from tests.serving.conftest import Collected

if TYPE_CHECKING:
    from atomr_infer.model.batch import RawChunk, TokenChunk
    from tests.serving.conftest import OpenTree

M = Deployment(name="m", runtime="awkward", retry=RetryPolicy(max_attempts=1))


def lives(pid: int | None) -> bool:
    """Whether a process is there."""
    assert pid is not None
    return os.path.exists(f"/proc/{pid}")


@attrs.define(weakref_slot=True)
class Slow(Collected):
    """A client that reads no further before it is told to."""

    reads: trio.Event = attrs.field(factory=trio.Event)

    async def chunk(self, chunk: TokenChunk | RawChunk) -> None:
        await self.reads.wait()
        await super().chunk(chunk)


async def test_another_process_takes_the_traffic_and_the_old_one_ends(
    open_tree: OpenTree,
) -> None:
    async with open_tree(M) as tree:
        old, sink = (await tree.replica()).engine_pid, Slow()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(tree.ask, "count 20", sink=sink))
            await until(lambda: tree.serving.replicas("m")[0].running == 1)
            await tree.serving.replace(attrs.evolve(M, options={"unload": "mark"}))
            new = (await tree.replica()).engine_pid
            assert new != old
            assert (lives(old), lives(new)) == (True, True)
            assert len((await tree.ask("count 2")).texts) == 2
            sink.reads.set()
        assert len(sink.texts) == 20
        await until(lambda: not lives(old), within_s=30)
        assert lives(new)


async def test_where_two_do_not_fit_the_old_one_ends_first(open_tree: OpenTree) -> None:
    first = attrs.evolve(M, serving=Serving(swap=Swap.AFTER))
    async with open_tree(first) as tree:
        old, sink = (await tree.replica()).engine_pid, Slow()
        changed = attrs.evolve(first, options={"unload": "mark"})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(tree.ask, "count 20", sink=sink))
            await until(lambda: tree.serving.replicas("m")[0].running == 1)
            nursery.start_soon(tree.serving.replace, changed)
            await until(lambda: not tree.serving.replicas("m")[0].ready)
            assert lives(old)
            sink.reads.set()
            # Who comes meanwhile waits for the new one.
            assert len((await tree.ask("count 2")).texts) == 2
            assert not lives(old)
        assert len(sink.texts) == 20
        assert lives((await tree.replica()).engine_pid)


async def test_a_bound_that_is_ours_costs_no_process(open_tree: OpenTree) -> None:
    async with open_tree(M) as tree:
        old = (await tree.replica()).engine_pid
        patient = attrs.evolve(M, timeouts=Timeouts(idle_s=300.0))
        await tree.serving.replace(patient)
        assert (await tree.replica()).engine_pid == old
        assert tree.serving.deployments["m"] is patient


async def test_a_process_that_dies_at_its_start_leaves_the_old_one(
    open_tree: OpenTree,
) -> None:
    async with open_tree(M) as tree:
        old = (await tree.replica()).engine_pid
        with pytest.raises(InferenceError):
            await tree.serving.replace(attrs.evolve(M, options={"load": "exit"}))
        assert (await tree.replica()).engine_pid == old
        assert lives(old)
