"""Keys over real sockets: rotated without a cut, replaced when refused, pooled."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from atomr_infer import errors
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.secret import (
    EnvSecret,
    FileSecret,
    HeaderSecret,
    Secret,
    SecretSource,
)
from atomr_infer.remote.credentials import sources as credentials_sources
from atomr_infer.remote.credentials.build import make_credentials
from atomr_infer.testing import upstream_script as script
from atomr_infer.testing.upstream import FakeUpstream, open_openai_upstream
from atomr_infer_openai.config import check_deployment
from atomr_infer_openai.runner import open_openai_runner
from tests.at_once import at_once, stand_still
from tests.plugins.openai.conftest import Pair

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from trio.testing import MockClock

    from atomr_infer.testing.upstream_script import Behaviour

REFUSED = script.Refused(status=401, message="no", code="invalid_api_key")
BROKE = script.Refused(status=402, message="pay")


@asynccontextmanager
async def open_pair(
    *behaviours: Behaviour,
    credential: SecretSource | None = None,
    credentials: Sequence[SecretSource] = (),
    environ: Mapping[str, str] | None = None,
) -> AsyncIterator[Pair]:
    async with open_openai_upstream(behaviours) as upstream:
        deployment = Deployment(
            name="up",
            runtime="openai",
            credential=credential,
            credentials=tuple(credentials),
            options={"endpoint": upstream.base_url},
        )
        keys = make_credentials(deployment, environ or {})
        async with open_openai_runner(deployment, keys) as runner:
            yield Pair(runner, upstream)


def keys_seen(upstream: FakeUpstream) -> list[str]:
    return [
        request.headers.get("authorization", "").removeprefix("Bearer ")
        for request in upstream.requests
    ]


def text(chunks: Sequence[object]) -> str:
    return "".join(getattr(chunk, "text", "") for chunk in chunks)


async def test_a_stream_goes_on_while_its_key_is_rotated(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("old")
    slow = script.Happy(tokens=("a", "b", "c", "d"), delay_s=0.05)
    async with open_pair(slow, credential=FileSecret(str(file))) as pair:
        first: list[str] = []

        async def stream() -> None:
            first.append(text(await pair.ask()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream)
            await pair.upstream.wait_for_requests(1)
            file.write_text("new")
            pair.runner._client.session.credentials.renew()
            assert text(await pair.ask()) == "Hello from the fake upstream."
            assert not first, "the first one is still under way"
        assert first == ["abcd"]
        assert keys_seen(pair.upstream) == ["old", "new"]
        # Another session: its connections are its own.
        assert [r.connection for r in pair.upstream.requests] == [0, 1]


async def test_the_request_whose_key_is_refused_is_made_again_with_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials_sources, "LOOK_EVERY_S", math.inf)
    file = tmp_path / "key"
    file.write_text("old")
    steps = (script.Happy(), REFUSED)
    async with open_pair(*steps, credential=FileSecret(str(file))) as pair:
        await pair.ask()
        file.write_text("new")
        assert text(await pair.ask()) == "Hello from the fake upstream."
        assert keys_seen(pair.upstream) == ["old", "old", "new"]
        assert [r.connection for r in pair.upstream.requests] == [0, 0, 1]


async def test_a_refused_key_that_is_still_the_same_costs_one_request() -> None:
    environ = {"KEY": "old"}
    credential = EnvSecret("KEY")
    async with open_pair(REFUSED, credential=credential, environ=environ) as pair:
        with pytest.raises(errors.UpstreamAuthError) as caught:
            await pair.ask()
        assert caught.value.status == 401
        assert keys_seen(pair.upstream) == ["old"]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_pool_goes_on_to_the_next_key(*, stream: bool) -> None:
    pool = [Secret("a"), Secret("b"), Secret("c"), Secret("d")]
    behaviours = (REFUSED, script.rate_limited("30"), BROKE)
    async with open_pair(*behaviours, credentials=pool) as pair:
        answer = await pair.ask(stream=stream)
        assert text(answer) == "Hello from the fake upstream."
        assert text(await pair.ask(stream=stream)) == "Hello from the fake upstream."
        assert keys_seen(pair.upstream) == ["a", "b", "c", "d", "d"]


async def test_a_pool_that_rests_is_not_asked_again() -> None:
    limited = [script.rate_limited("30"), script.rate_limited("20")]
    async with open_pair(*limited, credentials=[Secret("a"), Secret("b")]) as pair:
        for _ in range(3):
            with pytest.raises(errors.RateLimitedError) as caught:
                await pair.ask()
            assert caught.value.retry_after_s == pytest.approx(20.0, abs=5.0)
        assert len(pair.upstream.requests) == 2


async def test_the_client_s_key_goes_to_the_upstream_and_no_other() -> None:
    async with open_pair(credential=HeaderSecret("x-upstream-key")) as pair:
        for key in ("sk-one", "sk-two"):
            await pair.ask(client_headers={"x-upstream-key": key, "x-other": "no"})
        assert keys_seen(pair.upstream) == ["sk-one", "sk-two"]
        assert "x-upstream-key" not in pair.upstream.requests[0].headers
        with pytest.raises(errors.InvalidRequestError, match="'x-upstream-key'"):
            await pair.ask()
        assert len(pair.upstream.requests) == 2


async def test_a_client_that_leaves_while_the_next_key_is_tried_is_noticed(
    mock_clock: MockClock,
) -> None:
    mock_clock.rate = 1.0
    hang = script.HangBeforeHeaders()
    pool = [Secret("a"), Secret("b")]
    async with open_pair(REFUSED, hang, credentials=pool) as pair:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.ask)
            await pair.upstream.wait_for_requests(2)
            stand_still(mock_clock)
            nursery.cancel_scope.cancel()
        await at_once(pair.upstream.requests[1].client_left.is_set, mock_clock)
        assert pair.runner.active == 0


async def test_each_key_is_blotted_out_of_what_its_refusal_says() -> None:
    def echo(key: str) -> script.Refused:
        shown = f"Incorrect API key provided: {key[:12]}*****{key[-4:]}"
        return script.Refused(status=401, message=shown)

    pool = [Secret("sk-proj-aaaa0001"), Secret("sk-proj-bbbb0002")]
    behaviours = [echo(key.reveal()) for key in pool]
    async with open_pair(*behaviours, credentials=pool) as pair:
        with pytest.raises(errors.UpstreamAuthError) as caught:
            await pair.ask()
        cause = caught.value.__cause__
        assert isinstance(cause, errors.UpstreamAuthError)
        assert cause.message == "Incorrect API key provided: ********0002"


def test_a_pool_is_credential_enough_for_openai_itself() -> None:
    with pytest.raises(errors.ConfigError, match="needs a credential"):
        check_deployment(Deployment(name="o", runtime="openai"))
    pool = (EnvSecret("A"), EnvSecret("B"))
    check_deployment(Deployment(name="o", runtime="openai", credentials=pool))
