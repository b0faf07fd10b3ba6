"""A session is made anew without a cut, and a refused key is replaced once."""

from __future__ import annotations

import math
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
import trio.testing

from atomr_infer.errors import (
    InferenceError,
    RateLimitedError,
    UpstreamAuthError,
    UpstreamError,
)
from atomr_infer.model.secret import EnvSecret, Secret
from atomr_infer.policy.failures.key_pool import KeyPool
from atomr_infer.remote.credentials.keys import NoKey, OneKey, PooledKeys, fixed
from atomr_infer.remote.credentials.sources import EnvReader, FixedReader
from atomr_infer.remote.session import Session, open_session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from atomr_infer.runtimes.credentials import Credentials

REFUSED = UpstreamAuthError("no such key", status=401)
LIMITED = RateLimitedError("slow down", status=429, retry_after_s=7.0)


@attrs.define(eq=False)
class Line:
    """A client with a nursery, as an HTTP/2 client has one; leaves a record."""

    number: int
    closed: bool = False


@attrs.define(eq=False)
class Desk:
    """What was opened, and what was asked with which key on which client.

    Attributes:
        answers: keys to the error that they are answered with; None: taken.
        asked: client's number and key of each exchange, in order.
    """

    answers: dict[str, InferenceError | None] = attrs.field(factory=dict)
    lines: list[Line] = attrs.field(factory=list)
    asked: list[tuple[int, str | None]] = attrs.field(factory=list)

    @asynccontextmanager
    async def open_client(self) -> AsyncIterator[Line]:
        line = Line(len(self.lines))
        self.lines.append(line)
        # Left by another task than entered it, a nursery is a crash.
        try:
            async with trio.open_nursery():
                yield line
        finally:
            line.closed = True

    @asynccontextmanager
    async def begin(self, line: Line, secret: Secret | None) -> AsyncIterator[str]:
        key = None if secret is None else secret.reveal()
        self.asked.append((line.number, key))
        await trio.lowlevel.checkpoint()
        error = None if key is None else self.answers.get(key)
        if error is not None:
            raise error
        yield f"taken {key}"
        assert not line.closed, "a client is closed only when nobody uses it"

    def session(
        self, credentials: Credentials
    ) -> AbstractAsyncContextManager[Session[Line]]:
        return open_session(self.open_client, credentials)

    def closed(self) -> list[bool]:
        return [line.closed for line in self.lines]


@pytest.fixture
def desk() -> Desk:
    return Desk()


def rotating(environ: dict[str, str]) -> OneKey:
    return OneKey(EnvReader(EnvSecret("KEY"), environ, deployment="d"))


def pooled(*keys: str) -> PooledKeys:
    readers = [FixedReader(Secret(key)) for key in keys]
    return PooledKeys(readers, KeyPool([1] * len(keys)), deployment="d")


async def ask(session: Session[Line], desk: Desk) -> str:
    async with session.attempt(desk.begin) as answer:
        return answer


# --- one key ----------------------------------------------------------------


async def test_attempts_share_the_client_and_the_key(desk: Desk) -> None:
    async with desk.session(fixed(Secret("a"))) as session:
        assert await ask(session, desk) == "taken a"
        assert await ask(session, desk) == "taken a"
        assert desk.closed() == [False]
    assert desk.asked == [(0, "a"), (0, "a")]
    assert desk.closed() == [True]


async def test_without_a_key_none_is_sent(desk: Desk) -> None:
    async with desk.session(NoKey()) as session:
        assert await ask(session, desk) == "taken None"


async def test_a_refused_key_is_not_tried_twice(desk: Desk) -> None:
    desk.answers["a"] = REFUSED
    async with desk.session(fixed(Secret("a"))) as session:
        with pytest.raises(UpstreamAuthError) as caught:
            await ask(session, desk)
    assert caught.value is REFUSED
    assert desk.asked == [(0, "a")]


async def test_a_rotated_key_is_used_by_the_next_attempt(desk: Desk) -> None:
    environ = {"KEY": "a"}
    async with desk.session(rotating(environ)) as session:
        await ask(session, desk)
        environ["KEY"] = "b"
        await ask(session, desk)
    assert [key for _, key in desk.asked] == ["a", "b"]


async def test_the_request_that_failed_is_made_again_once_with_the_new_key(
    desk: Desk,
) -> None:
    environ = {"KEY": "a"}

    class Revoked(dict[str, InferenceError | None]):
        def get(self, key: str, default: object = None) -> InferenceError | None:
            # Whoever revokes the old key has put the new one in its place.
            environ["KEY"] = "b"
            return REFUSED if key == "a" else None

    desk.answers = Revoked()
    async with desk.session(rotating(environ)) as session:
        assert await ask(session, desk) == "taken b"
    assert desk.asked == [(0, "a"), (1, "b")]


async def test_a_new_key_that_is_refused_too_ends_it(desk: Desk) -> None:
    environ = {"KEY": "key-0"}

    class Moving(dict[str, InferenceError | None]):
        def get(self, key: str, default: object = None) -> InferenceError | None:
            environ["KEY"] = f"key-{int(key[-1]) + 1}"
            return REFUSED

    desk.answers = Moving()
    async with desk.session(rotating(environ)) as session:
        with pytest.raises(UpstreamAuthError):
            await ask(session, desk)
    assert [key for _, key in desk.asked] == ["key-0", "key-1"]


@pytest.mark.parametrize("error", [LIMITED, UpstreamError("down", status=500)])
async def test_what_is_not_about_the_key_is_raised_at_once(
    desk: Desk, error: InferenceError
) -> None:
    environ = {"KEY": "a"}
    desk.answers["a"] = error
    async with desk.session(rotating(environ)) as session:
        with pytest.raises(type(error)):
            await ask(session, desk)
        assert session.generation == 1
    assert desk.asked == [(0, "a")]


# --- generations ------------------------------------------------------------


async def test_a_running_attempt_keeps_its_client_until_it_ends(desk: Desk) -> None:
    environ = {"KEY": "a"}
    async with desk.session(rotating(environ)) as session:
        async with session.attempt(desk.begin):
            environ["KEY"] = "b"
            await ask(session, desk)
            assert (await ask(session, desk), desk.asked[-1]) == ("taken b", (1, "b"))
            await trio.testing.wait_all_tasks_blocked()
            assert desk.closed() == [False, False]
        await trio.testing.wait_all_tasks_blocked()
        assert desk.closed() == [True, False]


async def test_a_refusal_makes_the_session_anew_once_for_each_key(desk: Desk) -> None:
    desk.answers["a"] = REFUSED
    async with desk.session(fixed(Secret("a"))) as session:
        for _ in range(3):
            with pytest.raises(UpstreamAuthError):
                await ask(session, desk)
        assert session.generation == 2
        desk.answers["a"] = None
        await ask(session, desk)
        desk.answers["a"] = REFUSED
        with pytest.raises(UpstreamAuthError):
            await ask(session, desk)
        desk.answers["a"] = None
        await ask(session, desk)
        assert session.generation == 3


async def test_an_attempt_that_failed_holds_no_client(desk: Desk) -> None:
    keys = fixed(Secret("a"))
    desk.answers["a"] = UpstreamError("down")
    async with desk.session(keys) as session:
        with pytest.raises(UpstreamError):
            await ask(session, desk)
        keys.renew()
        desk.answers.clear()
        await ask(session, desk)
        await trio.testing.wait_all_tasks_blocked()
        assert desk.closed() == [True, False]


async def test_it_is_made_anew_on_demand(desk: Desk) -> None:
    keys = fixed(Secret("a"))
    async with desk.session(keys) as session:
        await ask(session, desk)
        keys.renew()
        await ask(session, desk)
        await trio.testing.wait_all_tasks_blocked()
        assert desk.closed() == [True, False]


async def test_many_who_come_at_once_make_one_new_client(desk: Desk) -> None:
    keys = fixed(Secret("a"))
    async with desk.session(keys) as session:
        keys.renew()
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ask, session, desk)
    assert len(desk.lines) == 2
    assert {line for line, _ in desk.asked} == {1}


async def test_a_client_that_cannot_be_opened_anew_is_an_error_of_the_block(
    desk: Desk,
) -> None:
    keys = fixed(Secret("a"))
    opened = desk.open_client

    @asynccontextmanager
    async def open_once() -> AsyncIterator[Line]:
        if desk.lines:
            raise ValueError("no second one")
        async with opened() as line:
            yield line

    async with open_session(open_once, keys) as session:
        keys.renew()
        with pytest.raises(ValueError, match="no second one"):
            await ask(session, desk)
        # The old one is still there, and the next attempt tries again.
        with pytest.raises(ValueError, match="no second one"):
            await ask(session, desk)


async def test_what_the_block_raises_leaves_it_bare(desk: Desk) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with desk.session(NoKey()):
            raise KeyError("mine")
    assert desk.closed() == [True]


async def test_a_cancelled_attempt_leaves_nothing_behind(desk: Desk) -> None:
    environ = {"KEY": "a"}
    async with desk.session(rotating(environ)) as session:
        with trio.CancelScope() as scope:
            async with session.attempt(desk.begin):
                scope.cancel()
                await trio.lowlevel.checkpoint()
        environ["KEY"] = "b"
        await ask(session, desk)
        await trio.testing.wait_all_tasks_blocked()
        assert desk.closed() == [True, False]


# --- several keys -----------------------------------------------------------


async def test_a_request_goes_through_the_pool_until_a_key_is_taken(
    desk: Desk,
) -> None:
    desk.answers = {"a": REFUSED, "b": LIMITED}
    async with desk.session(pooled("a", "b", "c")) as session:
        assert await ask(session, desk) == "taken c"
        assert await ask(session, desk) == "taken c"
    assert [key for _, key in desk.asked] == ["a", "b", "c", "c"]


async def test_when_every_key_rests_the_shortest_wait_is_told(
    desk: Desk, autojump_clock: trio.testing.MockClock
) -> None:
    desk.answers = {
        "a": LIMITED,
        "b": RateLimitedError("slow down", retry_after_s=3.0),
    }
    async with desk.session(pooled("a", "b")) as session:
        with pytest.raises(RateLimitedError) as caught:
            await ask(session, desk)
        assert caught.value.retry_after_s == 3.0
        assert caught.value.__cause__ is desk.answers["b"]
        # Nobody is asked while all rest.
        await trio.sleep(1.0)
        with pytest.raises(RateLimitedError) as caught:
            await ask(session, desk)
        assert caught.value.retry_after_s == 2.0
        assert len(desk.asked) == 2
        desk.answers["b"] = None
        await trio.sleep(2.0)
        assert await ask(session, desk) == "taken b"


async def test_when_every_key_is_dead_the_credentials_are_at_fault(
    desk: Desk, autojump_clock: trio.testing.MockClock
) -> None:
    desk.answers = {"a": REFUSED, "b": REFUSED}
    async with desk.session(pooled("a", "b")) as session:
        for _ in range(2):
            with pytest.raises(UpstreamAuthError, match="refuses all 2 keys"):
                await ask(session, desk)
        assert len(desk.asked) == 2
        desk.answers["a"] = None
        await trio.sleep(30.0)
        assert await ask(session, desk) == "taken a"


async def test_a_cancelled_probe_does_not_stop_the_probing(
    desk: Desk, autojump_clock: trio.testing.MockClock
) -> None:
    desk.answers = {"a": REFUSED}
    keys = pooled("a")

    @asynccontextmanager
    async def hang(line: Line, secret: Secret | None) -> AsyncIterator[str]:
        await trio.sleep(math.inf)
        yield ""

    async with desk.session(keys) as session:
        with pytest.raises(UpstreamAuthError):
            await ask(session, desk)
        await trio.sleep(30.0)
        with trio.move_on_after(1.0):
            async with session.attempt(hang):
                pytest.fail("begun")
        desk.answers = {}
        assert await ask(session, desk) == "taken a"


async def test_an_answer_that_ends_with_a_refusal_marks_the_key(desk: Desk) -> None:
    quota = UpstreamAuthError("spent", code="insufficient_quota")
    keys = pooled("a", "b")
    async with desk.session(keys) as session:
        with pytest.raises(UpstreamAuthError, match="spent"):
            async with session.attempt(desk.begin):
                raise quota
        assert keys.states == ("dead", "fresh")
        assert await ask(session, desk) == "taken b"
        assert await ask(session, desk) == "taken b"


async def test_a_pool_finds_a_key_that_was_replaced_where_it_is_kept(
    desk: Desk,
) -> None:
    environ = {"KEY": "a"}
    reader = EnvReader(EnvSecret("KEY"), environ, deployment="d")
    keys = PooledKeys([reader], KeyPool([1]), deployment="d")
    desk.answers["a"] = REFUSED
    async with desk.session(keys) as session:
        with pytest.raises(UpstreamAuthError):
            await ask(session, desk)
        environ["KEY"] = "b"
        assert "dead" in keys.states
        assert await ask(session, desk) == "taken b"
        assert "fresh" in keys.states


def test_nothing_about_a_session_shows_the_key(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    secret = Secret("sk-s3cret-0123456789")
    shown: list[Callable[[], str]] = []

    async def run() -> None:
        async with desk.session(fixed(secret)) as session:
            await ask(session, desk)
            shown.append(lambda: repr(session))

    trio.run(run)
    assert "Line(number=0" in shown[0]()
    assert "s3cret" not in shown[0]() + caplog.text
