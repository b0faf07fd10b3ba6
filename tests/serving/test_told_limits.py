"""Declared limits that are above what the provider tells: less is kept, and said."""

from __future__ import annotations

import logging
import math
import time
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from atomr_infer.model.batch import ExecuteBatch, Message, Role
from atomr_infer.model.deployment import Deployment, RetryPolicy, Serving
from atomr_infer.model.rate_limits import RateLimits
from atomr_infer.model.secret import EnvSecret, HeaderSecret, PooledSecret, Secret
from atomr_infer.policy.limits.rate_permits import Dimension
from atomr_infer.serving.application import open_serving
from atomr_infer.serving.limits import own_entries, told
from atomr_infer.serving.limits.limiters import Asks
from atomr_infer.serving.placing.status import local_status
from atomr_infer.serving.requests.request import run_request
from atomr_infer.testing.upstream import open_anthropic_upstream, open_openai_upstream
from tests.gateway.http import until
from tests.serving.acts import Player, says
from tests.serving.conftest import Collected
from tests.serving.test_announced import two_trees

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from trio.testing import MockClock

    from atomr_infer.serving.limits.shared_limits import ShownLimit
    from atomr_infer.serving.shared import Serving as Tree
    from tests.serving.conftest import OpenTree

REQUESTS = "anthropic-ratelimit-requests-limit"


MOCK = Deployment(
    name="m", runtime="mock", rate_limits=RateLimits(requests_per_minute=600)
)


class Chunks:
    """Chunks that have the headers of an answer."""

    def __init__(self, chunks: Any, headers: dict[str, str]) -> None:
        self._chunks = chunks
        self.headers = headers

    def __aiter__(self) -> Any:
        return self._chunks


class Telling(Player):
    """A runner whose provider tells its limits."""

    headers: dict[str, str]

    @asynccontextmanager
    async def execute(self, batch: ExecuteBatch) -> AsyncIterator[Any]:
        async with super().execute(batch) as chunks:
            yield Chunks(chunks, self.headers)


def limited(runtime: str = "lab", **limits: Any) -> Deployment:
    return Deployment(
        name="m",
        runtime=runtime,
        retry=RetryPolicy(max_attempts=1),
        serving=Serving(max_concurrency=100),
        options={"endpoint": "a"},
        rate_limits=RateLimits(**limits),
    )


async def ask(serving: Tree) -> None:
    batch = ExecuteBatch(
        request_id="r", model="m", messages=(Message(Role.USER, "hi"),)
    )
    await run_request(serving, batch, Collected())


def shown(serving: Tree) -> dict[str, ShownLimit]:
    return {each.counts: each for each in serving.limits.shown()}


async def test_no_window_has_more_than_the_provider_tells(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    times: list[float] = []

    async def ask_once() -> None:
        await tree.ask()
        times.append(trio.current_time())

    async with open_tree() as tree:
        player = Telling([says("ok")] * 99, max_concurrency=100)
        player.headers = {REQUESTS: "4"}
        tree.lab.plan, tree.lab.passes = [player], False
        await tree.serving.deploy(limited(requests_per_minute=10))
        await ask_once()
        async with trio.open_nursery() as nursery:
            for _ in range(11):
                nursery.start_soon(ask_once)
        assert all(
            later - at >= 60.0 for at, later in zip(times, times[4:], strict=False)
        )
        assert times[-1] - times[0] <= 125.0
        (limit,) = tree.serving.limits.shown()
        assert (limit.limit, limit.told) == (4, 4)
        # What is raised again is there at once, up to what was declared.
        player.headers = {REQUESTS: "400"}
        await trio.sleep(61.0)
        times.clear()
        for _ in range(10):
            await ask_once()
        assert times[-1] - times[0] <= 1.0
        (limit,) = tree.serving.limits.shown()
        assert (limit.limit, limit.told) == (10, 400)


async def test_who_waits_when_less_is_told_waits_on_for_less(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    times: list[float] = []

    async def ask_once() -> None:
        await tree.ask()
        times.append(trio.current_time())

    async with open_tree() as tree:
        player = Telling([says("ok", before_s=1.0)] * 99, max_concurrency=100)
        player.headers = {REQUESTS: "3"}
        tree.lab.plan, tree.lab.passes = [player], False
        await tree.serving.deploy(limited(requests_per_minute=6))
        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(ask_once)
        # Six were sent before anything was told.
        assert [sum(at < end for at in times) for end in (30.0, 90.0, 150.0)] == [
            6,
            9,
            12,
        ]


async def test_what_openai_tells_is_kept_shown_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    wanted = limited(
        "openai", requests_per_minute=600, tokens_per_minute=20_000, max_concurrent=9
    )
    async with open_openai_upstream() as upstream, open_serving(environ={}) as serving:
        options = {"endpoint": upstream.base_url}
        wanted = attrs.evolve(wanted, options=options, credential=Secret("sk-1"))
        await serving.deploy(wanted)
        for _ in range(2):
            await ask(serving)
        assert shown(serving)["requests_per_minute"].limit == 600
        for _ in range(3):
            await ask(serving)
        limits = shown(serving)
        assert {name: (each.limit, each.told) for name, each in limits.items()} == {
            "requests_per_minute": (500, 500),
            "tokens_per_minute": (20_000, 30_000),
            "max_concurrent": (9, None),
        }
        problem = (
            "requests_per_minute = 600 is above the 500 that its provider tells; so"
            " many are kept"
        )
        assert local_status(serving)[0].conflicts == (problem,)
        said = [each for each in caplog.messages if "is above" in each]
        assert said == [f"openai {upstream.base_url}, model m: {problem}"]
        # A reload of the same file changes nothing; one that says less is right.
        await serving.replace(wanted)
        assert shown(serving)["requests_per_minute"].limit == 500
        lower = attrs.evolve(wanted, rate_limits=RateLimits(requests_per_minute=400))
        await serving.replace(lower)
        assert shown(serving)["requests_per_minute"].limit == 400
        assert local_status(serving)[0].conflicts == ()
        assert "sk-1" not in caplog.text


async def test_what_anthropic_tells_is_kept_from_its_first_answer() -> None:
    wanted = limited("anthropic", requests_per_minute=5_000, tokens_per_minute=10)
    async with (
        open_anthropic_upstream() as upstream,
        open_serving(environ={}) as serving,
    ):
        options = {"endpoint": upstream.base_url}
        await serving.deploy(
            attrs.evolve(wanted, options=options, credential=Secret("sk-1"))
        )
        await ask(serving)
        limits = shown(serving)
        assert limits["requests_per_minute"].limit == 4_000
        assert limits["tokens_per_minute"].limit == 10


async def test_other_nodes_keep_what_one_was_told(tmp_path: Path) -> None:
    async with two_trees(tmp_path) as (a, b):
        for tree in (a, b):
            tree.limits.add(MOCK, Asks(provider="openai", account="0a1b"))
        name = a.limits.shown()[0].owner
        assert [shown(t)["requests_per_minute"].limit for t in (a, b)] == [600, 600]
        hear(a, {REQUESTS: "50"})
        assert shown(a)["requests_per_minute"].limit == 50
        await until(lambda: shown(b)["requests_per_minute"].limit == 50)
        # The newest counts, whoever was told.
        hear(b, {REQUESTS: "70"})
        await until(lambda: shown(a)["requests_per_minute"].limit == 70)
        assert a.limits.shown()[0].owner == name
        assert a.limits.problems("m") == b.limits.problems("m") != ()
        assert a.limits.service.limits == b.limits.service.limits


async def test_what_is_said_is_bounded_by_age_and_by_what_is_deployed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = time.time()
    monkeypatch.setattr(told, "time", SimpleNamespace(time=lambda: now_s))
    monkeypatch.setattr(own_entries, "_LOOK_S", 0.05)
    many = [attrs.evolve(MOCK, name=f"m{n}", serves=(f"m{n}",)) for n in range(9)]
    asks = Asks(provider="openai", account="0a1b")
    async with two_trees(tmp_path) as (a, b):

        def entries() -> tuple[int, int]:
            """How many the map has, as each of the nodes knows it."""
            counted = [len(tuple(tree.limits.told._map.items())) for tree in (a, b)]
            return counted[0], counted[1]

        for tree in (a, b):
            for each in many:
                tree.limits.add(each, asks)
                hear(tree, {REQUESTS: "50"}, of=each.name)
        await until(lambda: entries() == (18, 18))
        for tree in (a, b):
            for each in many[2:]:
                tree.limits.remove(each.name)
        await until(lambda: entries() == (4, 4))
        now_s += 86_399.0
        hear(a, {REQUESTS: "50"}, of="m0")  # it is still so
        await trio.sleep(0.2)
        assert entries() == (4, 4)
        now_s += 1.0
        await until(lambda: entries() == (1, 1))
        # Who has believed it goes on.
        assert {each.limit for t in (a, b) for each in t.limits.shown()} == {50}


async def test_what_a_node_is_told_again_counts_after_what_another_was_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = time.time()
    monkeypatch.setattr(told, "time", SimpleNamespace(time=lambda: now_s))
    async with two_trees(tmp_path) as (a, b):
        for tree in (a, b):
            tree.limits.add(MOCK, Asks(provider="openai", account="0a1b"))
        hear(a, {REQUESTS: "50"})
        now_s += 1.0
        hear(b, {REQUESTS: "70"})
        await until(lambda: kept(a) == kept(b) == 70)
        hear(a, {})  # tells nothing
        now_s += 58.0
        hear(a, {REQUESTS: "50"})  # they may take turns: not at once
        assert kept(a) == 70
        now_s += 1.0
        hear(a, {REQUESTS: "50"})
        await until(lambda: kept(a) == kept(b) == 50)


def kept(tree: Tree) -> int:
    return shown(tree)["requests_per_minute"].limit


def hear(tree: Tree, headers: dict[str, str], *, of: str = "m") -> None:
    (gate,) = tree.gates.of_attempts[of]
    gate.hear(headers)  # type: ignore[attr-defined] # a limit's gate


async def test_what_another_node_says_that_makes_no_sense_changes_nothing(
    tmp_path: Path,
) -> None:
    async with two_trees(tmp_path) as (a, b):
        for tree in (a, b):
            tree.limits.add(MOCK, Asks(provider="openai", account="0a1b"))
        other = {"name": "y", "at_s": 1.0, "limits": {"z": 1}}
        for value in ({"name": 3}, "x", other):
            a.limits.told._map.put(str(value), value)  # as another version would
        hear(a, {REQUESTS: "50"})
        await until(lambda: shown(b)["requests_per_minute"].limit == 50)


async def test_what_no_provider_can_have_told_changes_nothing(tmp_path: Path) -> None:
    async with two_trees(tmp_path) as (a, b):
        for tree in (a, b):
            tree.limits.add(MOCK, Asks(provider="openai", account="0a1b"))
        [name] = a.limits._shared
        now = time.time()
        for at_s, most in (
            (now + 9.0, 0),
            (now + 9.0, -1),
            (now + 3600.0, 7),
            (-math.inf, 7),
            (math.inf, 7),
            (math.nan, 7),
            (now, 50),
        ):
            value = {"name": name, "at_s": at_s}
            value["limits"] = {"requests_per_minute": most}
            a.limits.told._map.put(f"{at_s} {most}", value)
        await until(lambda: kept(a) == kept(b) == 50)


async def test_what_cannot_be_a_limit_is_not_believed() -> None:
    async with open_serving(environ={}) as serving:
        serving.limits.add(MOCK, Asks(provider="openai", account="0a1b"))
        [name] = serving.limits._shared
        with pytest.raises(ValueError, match="requests_per_minute"):
            serving.limits._take_told(name, {Dimension.REQUESTS: 0})
        assert shown(serving)["requests_per_minute"].told is None
        hear(serving, {REQUESTS: "50"})
        assert shown(serving)["requests_per_minute"].limit == 50


@pytest.mark.parametrize(
    "several",
    [
        {"serves": ("claude-*",)},
        {"serves": ("m", "n")},
        {"credentials": (PooledSecret(EnvSecret("A")), PooledSecret(EnvSecret("B")))},
        {"credential": HeaderSecret("x-key")},
    ],
    ids=["a pattern", "two models", "two keys", "clients' keys"],
)
async def test_nothing_is_learnt_where_several_keys_or_models_share_a_limit(
    several: dict[str, Any],
) -> None:
    """Each would be told something else, and each answer would change the limit."""
    async with open_serving(environ={}) as serving:
        wanted = attrs.evolve(MOCK, **several)
        serving.limits.add(wanted, Asks(provider="anthropic", account="0a1b"))
        hear(serving, {REQUESTS: "50"})
        assert shown(serving)["requests_per_minute"].limit == 600
        assert serving.limits.problems("m") == ()
