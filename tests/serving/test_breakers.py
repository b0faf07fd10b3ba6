"""An endpoint that fails is left alone, by all of its deployments together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from atomr import telemetry
from atomr_infer import errors
from atomr_infer.model.deployment import Deployment, RetryPolicy, Serving, Timeouts
from atomr_infer.model.failover import BreakerPolicy
from atomr_infer.policy.failures.breaker import Circuit
from atomr_infer.serving.requests.served import Tried
from tests.serving.acts import Act, Player, fails, says, stalls

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trio.testing import MockClock

    from atomr_infer.serving.limits.breakers import Guard
    from tests.serving.conftest import OpenTree, Tree

POLICY = BreakerPolicy(max_failures=3, open_s=10.0)
ONCE = RetryPolicy(max_attempts=1)
BROKEN = errors.UpstreamError("broken", status=503)

A = Deployment(
    name="m",
    runtime="lab",
    retry=ONCE,
    breaker=POLICY,
    options={"endpoint": "https://x.test/v1"},
)
TWIN = attrs.evolve(A, name="twin", serves=["twin"])
B = Deployment(name="b", runtime="lab")


async def deploy(tree: Tree, deployment: Deployment, player: Player) -> None:
    tree.lab.plan = [player] * deployment.serving.replicas
    await tree.serving.deploy(deployment)


def guard_of(tree: Tree, deployment: str = "m") -> Guard:
    guard = tree.serving.breakers.of(deployment)
    assert guard is not None
    return guard


async def trip(tree: Tree, times: int = 3, model: str = "m") -> None:
    for _ in range(times):
        with pytest.raises(errors.UpstreamError):
            await tree.ask(model=model)


async def test_after_so_many_failures_the_endpoint_is_left_alone(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    player = Player([fails(BROKEN)] * 3)
    async with open_tree() as tree:
        await deploy(tree, A, player)
        await trip(tree)
        await trio.sleep(4)
        with pytest.raises(errors.CircuitOpenError) as caught:
            await tree.ask()
        assert caught.value.message == (
            "the circuit of lab https://x.test/v1 is open for 6 s more: "
            "it failed too often"
        )
        assert caught.value.retry_after_s == pytest.approx(6.0)
        assert len(player.batches) == 3
        await trio.sleep(6)
        assert (await tree.ask()).texts == ["ok"]
        assert guard_of(tree).breaker.state is Circuit.CLOSED
        await tree.idle()


async def test_an_open_circuit_is_a_reason_for_the_fallback(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    player = Player([fails(BROKEN)] * 3)
    async with open_tree() as tree:
        await deploy(tree, B, Player())
        await deploy(tree, attrs.evolve(A, fallbacks=["b"]), player)
        for _ in range(3):
            await tree.ask()
        answer = await tree.ask()
    assert answer.served[0].attempts == (Tried("m", "circuit_open"), Tried("b"))
    assert len(player.batches) == 3


async def test_retries_count_and_stop_at_the_open_circuit(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    player = Player([fails(BROKEN)] * 9)
    eager = attrs.evolve(A, retry=RetryPolicy(max_attempts=9))
    async with open_tree() as tree:
        await deploy(tree, eager, player)
        with pytest.raises(errors.CircuitOpenError):
            await tree.ask()
    assert len(player.batches) == 3


async def test_deployments_and_replicas_of_an_endpoint_share_its_breaker(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    two = attrs.evolve(A, serving=Serving(replicas=2))
    async with open_tree() as tree:
        await deploy(tree, two, Player([fails(BROKEN)] * 2))
        await deploy(tree, TWIN, Player([fails(BROKEN)]))
        await trip(tree, 2)
        await trip(tree, 1, model="twin")
        for model in ("m", "twin"):
            with pytest.raises(errors.CircuitOpenError):
                await tree.ask(model=model)
        assert guard_of(tree) is guard_of(tree, "twin")


async def test_a_breaker_goes_with_the_last_deployment_of_its_endpoint(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        await deploy(tree, A, Player([fails(BROKEN)] * 3))
        await deploy(tree, TWIN, Player())
        await trip(tree)
        await tree.serving.undeploy("m")
        with pytest.raises(errors.CircuitOpenError):
            await tree.ask(model="twin")
        await tree.serving.undeploy("twin")
        assert tree.serving.breakers.guards == {}
        await deploy(tree, TWIN, Player())
        assert (await tree.ask(model="twin")).texts == ["ok"]


async def test_deployments_of_an_endpoint_must_agree_on_its_breaker(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    other = attrs.evolve(TWIN, breaker=BreakerPolicy())
    async with open_tree() as tree:
        await deploy(tree, A, Player())
        with pytest.raises(errors.ConfigError, match="differs from that of 'm', which"):
            await tree.serving.deploy(other)
        assert tree.serving.table.names() == ("m",)


async def test_a_plugin_that_cannot_say_its_endpoint_is_refused(
    open_tree: OpenTree, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(deployment: Deployment) -> str:
        return str(deployment.options["no such"])

    async with open_tree() as tree:
        monkeypatch.setattr(type(tree.lab), "endpoint", staticmethod(broken))
        with pytest.raises(errors.PluginError, match="KeyError: 'no such'"):
            await tree.serving.deploy(A)
        assert tree.serving.table.names() == ()


@pytest.mark.parametrize(
    "error",
    [
        errors.RateLimitedError("slow down", status=429),
        errors.InvalidRequestError("no", status=400),
        errors.ContentFilterError("no", status=400),
        errors.UpstreamAuthError("who?", status=401),
    ],
    ids=lambda error: error.kind,
)
async def test_what_the_client_or_the_operator_does_wrong_never_counts(
    open_tree: OpenTree, autojump_clock: MockClock, error: errors.InferenceError
) -> None:
    async with open_tree() as tree:
        await deploy(tree, A, Player([fails(error)] * 20))
        for _ in range(20):
            with pytest.raises(type(error)):
                await tree.ask()
        assert guard_of(tree).breaker.state is Circuit.CLOSED


async def test_clients_that_leave_never_count(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        await deploy(tree, A, Player([stalls()] * 20))
        for _ in range(20):
            with trio.move_on_after(1):
                await tree.ask()
        assert guard_of(tree).breaker.state is Circuit.CLOSED


async def test_half_open_lets_one_through_and_a_probe_that_leaves_gives_its_place_back(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    player = Player([fails(BROKEN)] * 3 + [stalls()])
    async with open_tree() as tree:
        await deploy(tree, A, player)
        await trip(tree)
        await trio.sleep(10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.ask)
            await trio.sleep(1)
            for _ in range(5):
                with pytest.raises(errors.CircuitOpenError):
                    await tree.ask()
            nursery.cancel_scope.cancel()
        assert len(player.batches) == 4
        assert guard_of(tree).breaker.probes == 0
        assert (await tree.ask()).texts == ["ok"]


async def test_a_probe_that_begins_to_answer_lets_the_others_in(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        await deploy(tree, A, Player([fails(BROKEN)] * 3 + [stalls("slow")]))
        await trip(tree)
        await trio.sleep(10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.ask)
            await trio.sleep(1)
            assert (await tree.ask()).texts == ["ok"]
            nursery.cancel_scope.cancel()


async def test_a_probe_that_is_silent_reopens_the_circuit_for_longer(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    quick = attrs.evolve(A, timeouts=Timeouts(first_token_s=1))
    async with open_tree() as tree:
        await deploy(tree, quick, Player([fails(BROKEN)] * 3 + [stalls()]))
        await trip(tree)
        await trio.sleep(10)
        await trip(tree, 1)
        with pytest.raises(errors.CircuitOpenError) as caught:
            await tree.ask()
        assert caught.value.retry_after_s == pytest.approx(20.0)


async def test_the_circuit_may_open_while_a_request_waits_in_the_queue(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    one = attrs.evolve(
        A,
        serving=Serving(max_concurrency=1),
        breaker=BreakerPolicy(max_failures=1),
    )
    player = Player([Act(error=BROKEN, before_s=2.0)])
    async with open_tree() as tree:
        await deploy(tree, one, player)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trip, tree, 1)
            await trio.sleep(1)
            with pytest.raises(errors.CircuitOpenError):
                await tree.ask()
        assert len(player.batches) == 1
        await tree.idle()


async def test_an_open_circuit_is_not_waited_for_in_a_queue(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    one = attrs.evolve(A, serving=Serving(max_concurrency=1))
    async with open_tree() as tree:
        await deploy(tree, one, Player([stalls()]))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.ask)
            await trio.sleep(1)
            guard_of(tree).force_open()
            with trio.fail_after(0), pytest.raises(errors.CircuitOpenError):
                await tree.ask()
            nursery.cancel_scope.cancel()


async def test_an_operator_can_force_it_and_see_what_happened(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    seen: list[Mapping[str, object]] = []
    telemetry.attach(
        "test",
        ("atomr_infer", "breaker", "transition"),
        lambda _event, _measurements, metadata: seen.append(metadata),
    )
    try:
        async with open_tree() as tree:
            await deploy(tree, A, Player([says("Hi")]))
            guard = tree.serving.breakers.guards["lab https://x.test/v1"]
            guard.force_open()
            await trio.sleep(10 * POLICY.open_s)
            with pytest.raises(errors.CircuitOpenError, match="open by hand"):
                await tree.ask()
            guard.force_close()
            assert (await tree.ask()).texts == ["Hi"]
    finally:
        telemetry.detach("test")
    name = "lab https://x.test/v1"
    assert seen == [
        {
            "endpoint": name,
            "before": "closed",
            "after": "open",
            "reason": "forced open",
        },
        {
            "endpoint": name,
            "before": "open",
            "after": "closed",
            "reason": "forced closed",
        },
    ]


async def test_a_deployment_without_an_endpoint_has_no_breaker(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        bare = attrs.evolve(A, options={})
        await deploy(tree, bare, Player([fails(BROKEN)] * 10))
        await trip(tree, 10)
        assert tree.serving.breakers.of("m") is None
