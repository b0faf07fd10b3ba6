"""The routing table: read in place, and as cheap as ever where there is no choice."""

from __future__ import annotations

import sys
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from atomr.crdt.origin import Origin
from atomr.refs import Pid, Ref
from atomr_infer.errors import EngineCrashedError, NotReadyError
from atomr_infer.model.batch import ExecuteBatch, Message, Role
from atomr_infer.model.deployment import Deployment, Serving
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.routing import Routing
from atomr_infer.model.source import Source
from atomr_infer.policy.tenants.admission import AdmissionQueue
from atomr_infer.serving.replicas.engine_life import EngineLife
from atomr_infer.serving.replicas.far_replica import FarReplica
from atomr_infer.serving.replicas.permits import Ended, Permits
from atomr_infer.serving.replicas.replica import Phase, ReplicaState
from atomr_infer.serving.replicas.routing_table import RoutingTable
from atomr_infer.wire.nodes.loads import Load

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

M = Deployment(name="m", runtime="lab")
BATCH = ExecuteBatch(
    request_id="r", model="m", messages=(Message(Role.USER, "one two " * 400),)
)


def named(name: str) -> ExecuteBatch:
    """A request of another conversation, with another prompt."""
    message = Message(Role.USER, f"{name} " * 2_000)
    return attrs.evolve(BATCH, session=name, messages=(message,))


class Peers:
    """Everybody can be reached."""

    def link(self, _: Origin) -> object:
        return self


def local(number: int, phase: Phase = Phase.SERVING, limit: int = 4) -> ReplicaState:
    queue: AdmissionQueue[Ref] = AdmissionQueue(max_queue=9, aging_s=1.0)
    permits = Permits(queue)
    permits.limit.resize(limit)
    queue.open(limit)
    return ReplicaState(number, Pid(number + 1, "core"), permits, phase)


def far(node: str, number: int = 0, **load: Any) -> FarReplica:
    peers: Any = Peers()
    replica = FarReplica(Origin(node, 1), "m", number, peers, Phase.SERVING)
    replica.tell(Load("m", number, **{"limit": 4, **load}), now=0.0)
    return replica


def table_of(*replicas: ReplicaState | FarReplica) -> RoutingTable:
    table = RoutingTable("m")
    elsewhere = tuple(r for r in replicas if isinstance(r, FarReplica))
    table.join("a", {"m": elsewhere} if elsewhere else {})
    for replica in replicas:
        if isinstance(replica, ReplicaState):
            table.add(replica)
    return table


def calls(work: Callable[[], object]) -> int:
    """Return how many functions run through, those of C too."""
    count = 0

    def note(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def test_where_there_is_no_choice_none_is_made() -> None:
    table = table_of(local(0))
    routed = table.choose(frozenset(), M, BATCH)
    assert routed.route == b"node=a; replica=0; reason=only; candidates=1"
    assert table.choose(frozenset(), M, BATCH) is routed
    idle = table.idle(M.serving, BATCH)
    assert idle is not None
    assert idle[1] is routed.route
    # With the one that asks, and the end of the count.
    assert calls(partial(table.idle, M.serving, BATCH)) <= 9
    assert calls(partial(table.choose, frozenset(), M, BATCH)) <= 9


def test_a_table_without_a_replica_says_why() -> None:
    table = table_of()
    with pytest.raises(NotReadyError, match="m has no replica that can serve"):
        table.choose(frozenset(), M, BATCH)
    assert table.idle(M.serving, BATCH) is None
    failed = table_of(local(0, Phase.FAILED))
    failed.note_error(EngineCrashedError("killed"))
    with pytest.raises(EngineCrashedError, match="killed"):
        failed.choose(frozenset(), M, BATCH)
    assert failed.idle(M.serving, BATCH) is None


async def test_replicas_of_all_nodes_are_told_apart_by_their_work(
    autojump_clock: MockClock,
) -> None:
    busy = local(0)
    busy.tokens = 50_000
    table = table_of(busy, far("b", tokens=40_000), far("c", tokens=9_000))
    routed = table.choose(frozenset(), M, BATCH)
    assert routed.route == b"node=c; replica=0; reason=least_tokens; candidates=3"
    assert table.idle(M.serving, BATCH) is None  # it is on another node
    busy.tokens = 9_000
    assert table.choose(frozenset(), M, BATCH).replica is busy
    idle = table.idle(M.serving, BATCH)
    assert idle is not None
    assert idle[0] is busy


async def test_a_look_at_the_others_is_enough_while_this_node_has_no_more_to_do(
    autojump_clock: MockClock,
) -> None:
    source = Source(Dialect.OPENAI_CHAT, b"x" * 400, "m")
    small = attrs.evolve(BATCH, messages=(), source=source)  # 356 tokens
    here = local(0)
    table = table_of(here, far("b", tokens=1_000), far("c", tokens=2_000))
    for tokens, asked in ((0, True), (2_000, True), (2_034, True), (2_040, False)):
        here.tokens = tokens
        idle = table.idle(M.serving, small)
        assert (idle is not None) is asked, tokens
        chosen = table.choose(frozenset(), M, small).replica
        assert (chosen is here) is asked, tokens
    here.tokens = 0
    idle = table.idle(M.serving, small)
    assert idle is not None
    assert idle[2] == 356
    # Among three as well as among a hundred it costs a few calls.
    assert calls(partial(table.idle, M.serving, small)) <= 40


async def test_tokens_of_the_straight_way_are_counted_until_it_ends(
    autojump_clock: MockClock,
) -> None:
    replica = local(0)
    permits = replica.permits
    permits.state = replica
    engine: Any = SimpleNamespace(life=EngineLife())
    permits.engine = engine
    permit = permits.take(356)
    assert permit is not None
    assert replica.tokens == 356
    permit.give_back(Ended.SUCCEEDED)
    assert replica.tokens == 0


async def test_what_was_sent_counts_until_its_node_counts_it(
    autojump_clock: MockClock,
) -> None:
    b, c = far("b"), far("c")
    table = table_of(b, c)
    seen = []
    turns = []
    for _ in range(4):
        routed = table.choose(frozenset(), M, BATCH)
        assert isinstance(routed.replica, FarReplica)
        seen.append(routed.replica.node.name)
        turns.append(routed.replica.send(100))
    assert seen == ["b", "c", "b", "c"]
    b.tell(Load("m", 0, outstanding=2, tokens=180, limit=4), now=1.0)
    assert (b.outstanding, b.tokens) == (2, 180)
    b.back(turns[0], 100)  # its node has counted it, and will count its end
    assert (b.outstanding, b.tokens) == (2, 180)
    c.back(turns[1], 100)
    assert (c.outstanding, c.tokens) == (1, 100)


@pytest.mark.parametrize("routing", [Routing.SESSION, Routing.PREFIX])
async def test_a_choice_that_needs_the_request_is_not_made_on_the_straight_way(
    autojump_clock: MockClock, routing: Routing
) -> None:
    by_request = attrs.evolve(M, serving=Serving(routing=routing))
    two = table_of(local(0), local(1))
    assert two.idle(by_request.serving, BATCH) is None
    assert table_of(local(0)).idle(by_request.serving, BATCH) is not None
    one = {two.choose(frozenset(), by_request, named("x")).replica for _ in range(9)}
    assert len(one) == 1
    all_of_them = {
        two.choose(frozenset(), by_request, named(str(name))).replica
        for name in range(9)
    }
    assert len(all_of_them) == 2


async def test_a_prompt_that_was_read_goes_where_it_was_read(
    autojump_clock: MockClock,
) -> None:
    by_prefix = attrs.evolve(M, serving=Serving(routing=Routing.PREFIX))
    table = table_of(local(0), far("b"), far("c"))
    first = table.choose(frozenset(), by_prefix, BATCH)
    assert b"reason=prefix_new" in first.route
    longer = attrs.evolve(
        BATCH, messages=(*BATCH.messages, Message(Role.USER, "and now?" * 200))
    )
    again = table.choose(frozenset(), by_prefix, longer)
    assert again.replica is first.replica
    assert b"reason=prefix;" in again.route


async def test_the_time_to_the_first_words_fades_while_nobody_asks(
    autojump_clock: MockClock,
) -> None:
    replica = local(0)
    assert replica.first_s == 0.0
    replica.heard(2.0, trio.current_time())
    assert replica.first_s == 2.0
    replica.heard(1.0, trio.current_time())
    assert replica.first_s == pytest.approx(1.8)
    await trio.sleep(10)
    assert replica.first_s == pytest.approx(0.9)
