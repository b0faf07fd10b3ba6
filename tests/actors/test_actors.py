"""Actors as deployments: asked by programs, by clients, and by each other."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
import trio.testing

from atomr_infer.actors import Request, ask, deployment_of
from atomr_infer.cluster import Cluster
from atomr_infer.errors import (
    ConfigError,
    DeadlineError,
    EngineError,
    InternalError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
)
from atomr_infer.model.deployment import Deployment, RetryPolicy
from tests.actors.own import (
    Counter,
    Fragile,
    Plan,
    Task,
    both,
    curious,
    loud,
    plan,
    several,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

SMALL = Deployment(name="small", runtime="mock")
ONCE = RetryPolicy(max_attempts=1)


@asynccontextmanager
async def open_cluster(*deployments: Deployment) -> AsyncIterator[Cluster]:
    async with Cluster.connect("inproc://app") as cluster:
        for deployment in deployments:
            await cluster.deploy(attrs.evolve(deployment, retry=ONCE))
        yield cluster


async def test_an_actor_takes_and_gives_values_and_asks_a_deployment() -> None:
    async with open_cluster(
        SMALL, deployment_of(plan, "plan", style="bold")
    ) as cluster:
        found = await ask(cluster.lookup("plan", plan), Task("go on", 2))

    assert found == Plan(steps=("go on", "go on"), style="bold")


async def test_an_actor_answers_a_chat_as_any_model_does() -> None:
    async with open_cluster(SMALL, deployment_of(loud, "loud")) as cluster:
        whole = await cluster.chat("loud", "hello you")
        async with cluster.stream("loud", "hello you") as chunks:
            pieces = [chunk.text async for chunk in chunks if chunk.text]
        asked = await ask(cluster.lookup("loud", loud), "hello you")

    assert whole.text == asked == "HELLO YOU"
    assert pieces == ["HELLO", " YOU"]


async def test_a_client_asks_an_actor_of_values_in_json() -> None:
    async with open_cluster(SMALL, deployment_of(plan, "plan")) as cluster:
        reply = await cluster.chat("plan", '{"text": "go on"}')
        with pytest.raises(InvalidRequestError) as raised:
            await cluster.chat("plan", '{"times": 3}')

    assert reply.text == '{"steps":["go on"],"style":"plain"}'
    told = "tests.actors.own:plan takes JSON of Task: Object missing required field"
    assert raised.value.message.startswith(told)


async def test_a_class_keeps_its_state_and_handles_one_request_at_a_time() -> None:
    found: list[int] = []

    async def count(cluster: Cluster) -> None:
        found.append(await ask(cluster.lookup("counter", Counter), 2))

    counter = deployment_of(Counter, "counter", start=1)
    async with open_cluster(counter) as cluster, trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(count, cluster)

    assert sorted(found) == [3, 5, 7, 9, 11]


async def test_an_actor_asks_another_one_and_for_vectors(waiting: Any) -> None:
    vectors = Deployment(name="v", runtime="waiting")
    counter = deployment_of(Counter, "counter")
    async with open_cluster(vectors, counter, deployment_of(both, "both")) as cluster:
        found = await ask(cluster.lookup("both", both), "abc")

    assert found == "3 ((3.0, 0.0),)"
    assert waiting.embedded == [("abc",)]


# --- how it fails --------------------------------------------------------------------


async def test_a_name_that_nobody_serves_is_not_found() -> None:
    async with open_cluster(SMALL) as cluster:
        with pytest.raises(ModelNotFoundError, match="did you mean 'small'"):
            cluster.lookup("smal")


async def test_an_actor_asks_only_whom_it_has_named() -> None:
    free = deployment_of(curious, "free")
    named = attrs.evolve(deployment_of(curious, "named"), options={"asks": ["small"]})
    async with open_cluster(SMALL, free, named) as cluster:
        assert await ask(cluster.lookup("named", curious), "small") == "hello"
        with pytest.raises(InternalError) as raised:
            await ask(cluster.lookup("free", curious), "small")

    assert str(raised.value) == (
        "lookup('small'): this actor asks nobody; add the name to asks, in its "
        "decorator or in the options of its deployment"
    )


@pytest.mark.parametrize(
    ("how", "error", "told"),
    [
        (
            "bug",
            EngineError,
            "tests.actors.own:Fragile failed: KeyError: 'no such key'",
        ),
        ("busy", OverloadedError, "come again"),
        ("liar", None, "5 is no int"),
    ],
)
async def test_what_its_code_raises_is_the_error_of_that_request(
    how: str, error: type[Exception] | None, told: str
) -> None:
    async with open_cluster(deployment_of(Fragile, "fragile")) as cluster:
        fragile = cluster.lookup("fragile", Fragile)
        if error is None:
            with pytest.raises(Exception, match="does not reply with JSON of int"):
                await ask(fragile, how)
        else:
            with pytest.raises(error) as raised:
                await ask(fragile, how)
            assert str(raised.value) == told
        # Its state is as it was.
        assert await ask(fragile, "well") == 2


async def test_what_fails_of_several_that_are_asked_at_once_is_told_in_no_group() -> (
    None
):
    fragile = deployment_of(Fragile, "fragile")
    async with open_cluster(fragile, deployment_of(several, "several")) as cluster:
        asked = cluster.lookup("several", several)
        assert await ask(asked, ["well", "well"]) == 2
        with pytest.raises(OverloadedError, match="come again"):
            await ask(asked, ["well", "busy"])


async def test_a_crash_gives_it_a_new_state(autojump_clock: MockClock) -> None:
    async with open_cluster(deployment_of(Fragile, "fragile")) as cluster:
        fragile = cluster.lookup("fragile", Fragile)
        assert await ask(fragile, "well") == 1
        with pytest.raises(EngineError, match="its state is spoilt"):
            await ask(fragile, "crash")
        assert await ask(fragile, "well") == 1


async def test_who_waits_too_long_is_told_and_its_work_has_ended(
    autojump_clock: MockClock,
) -> None:
    async with open_cluster(deployment_of(Fragile, "fragile")) as cluster:
        fragile = cluster.lookup("fragile", Fragile)
        with pytest.raises(DeadlineError):
            await ask(fragile, "hang", timeout_s=0.5)
        # One at a time: the next one has its place.
        assert await ask(fragile, "well", timeout_s=0.5) == 2


async def test_a_client_that_leaves_ends_what_its_actor_asks(
    autojump_clock: MockClock,
) -> None:
    slow = attrs.evolve(SMALL, options={"hang_after": 1})
    async with open_cluster(slow, deployment_of(loud, "loud")) as cluster:
        with trio.move_on_after(0.5) as scope:
            await cluster.chat("loud", "hello you")
        await trio.testing.wait_all_tasks_blocked()
        [small], [actor] = (
            await cluster.replicas("small"),
            await cluster.replicas("loud"),
        )

    assert scope.cancelled_caught
    assert (small.outstanding, actor.outstanding) == (0, 0)


async def test_who_answers_is_asked_beside_its_options() -> None:
    async with open_cluster(SMALL) as cluster:
        with pytest.raises(ConfigError, match="takes no option 'stile'; did you mean"):
            await cluster.deploy(
                attrs.evolve(deployment_of(plan, "plan"), options={"stile": "x"})
            )
        with pytest.raises(ConfigError, match="asks is 'small'; it must be a list"):
            await cluster.deploy(
                attrs.evolve(deployment_of(plan, "plan"), options={"asks": "small"})
            )
        with pytest.raises(ConfigError, match="Bare'>, and no actor; decorate it"):
            await cluster.deploy(
                Deployment(name="bare", runtime="actor:tests.actors.own:Bare")
            )


async def test_actors_that_ask_each_other_in_a_ring_are_refused() -> None:
    first = attrs.evolve(deployment_of(curious, "a"), options={"asks": ["small"]})
    again = attrs.evolve(deployment_of(curious, "b"), options={"asks": ["a"]})
    # It serves the name "small", too.
    ring = attrs.evolve(SMALL, name="small2", fallbacks=("b",))
    async with open_cluster(SMALL, first, again) as cluster:
        with pytest.raises(ConfigError, match="ask itself"):
            await cluster.deploy(
                attrs.evolve(deployment_of(curious, "c"), options={"asks": ["c"]})
            )
        with pytest.raises(ConfigError, match="small2 -> b -> a -> small2"):
            await cluster.deploy(ring)


def test_the_simple_request_is_the_one_of_the_python_runtime() -> None:
    from atomr_infer_python import Request as OfPlugin  # noqa: PLC0415

    assert OfPlugin is Request
