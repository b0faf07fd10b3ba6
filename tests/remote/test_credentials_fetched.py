"""A fetched token: once for all, ahead of its end, and never in a hurry."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
import trio.testing

from atomr_infer.errors import (
    InferenceError,
    MissingSecretError,
    UpstreamAuthError,
    UpstreamError,
    UpstreamTimeoutError,
)
from atomr_infer.model.secret import Secret
from atomr_infer.remote.credentials.fetched import FetchedReader
from atomr_infer.remote.credentials.keys import OneKey
from atomr_infer.runtimes.credentials import Fetched

if TYPE_CHECKING:
    from trio.testing import MockClock


@attrs.define(eq=False)
class Issuer:
    """Issues t0, t1, ...; each takes ``takes_s`` and lives for ``life_s``."""

    life_s: float | None = 1000.0
    takes_s: float = 0.0
    failure: Exception | None = None
    begun: int = 0
    issued: int = 0

    async def fetch(self) -> Fetched:
        self.begun += 1
        await trio.sleep(self.takes_s)
        if self.failure is not None:
            raise self.failure
        self.issued += 1
        return Fetched(Secret(f"t{self.issued - 1}"), self.life_s)

    def reader(self) -> FetchedReader:
        return FetchedReader(self.fetch, label="d: the provider 'p'")


async def read(reader: FetchedReader) -> str:
    return (await reader.read()).reveal()


async def test_nothing_is_fetched_before_it_is_needed_and_then_once(
    autojump_clock: MockClock,
) -> None:
    issuer = Issuer()
    reader = issuer.reader()
    assert issuer.begun == 0
    assert [await read(reader) for _ in range(3)] == ["t0", "t0", "t0"]
    assert issuer.begun == 1


async def test_many_who_come_at_once_share_one_fetch(autojump_clock: MockClock) -> None:
    issuer = Issuer(takes_s=1.0)
    reader = issuer.reader()
    got: list[str] = []

    async def ask() -> None:
        got.append(await read(reader))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(ask)
    assert (got, issuer.begun) == (["t0"] * 20, 1)


@pytest.mark.parametrize(("life_s", "ahead_s"), [(1000.0, 120.0), (100.0, 20.0)])
async def test_it_is_renewed_ahead_of_its_end(
    autojump_clock: MockClock, life_s: float, ahead_s: float
) -> None:
    issuer = Issuer(life_s=life_s)
    reader = issuer.reader()
    await read(reader)
    await trio.sleep(life_s - ahead_s - 0.1)
    assert await read(reader) == "t0"
    await trio.sleep(0.1)
    assert await read(reader) == "t1"


async def test_while_one_renews_the_others_go_on_with_the_old_one(
    autojump_clock: MockClock,
) -> None:
    issuer = Issuer()
    reader = issuer.reader()
    await read(reader)
    await trio.sleep(900.0)
    issuer.takes_s = 5.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.read)
        await trio.testing.wait_all_tasks_blocked()
        before = trio.current_time()
        assert await read(reader) == "t0"
        assert trio.current_time() == before
    assert (await read(reader), issuer.begun) == ("t1", 2)


async def test_a_token_that_has_ended_is_not_used(autojump_clock: MockClock) -> None:
    issuer = Issuer()
    reader = issuer.reader()
    await read(reader)
    await trio.sleep(1000.0)
    assert await read(reader) == "t1"


async def test_while_one_renews_an_ended_one_the_others_wait(
    autojump_clock: MockClock,
) -> None:
    issuer = Issuer()
    reader = issuer.reader()
    await read(reader)
    await trio.sleep(1000.0)
    issuer.takes_s = 5.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.read)
        await trio.testing.wait_all_tasks_blocked()
        assert await read(reader) == "t1"
    assert issuer.begun == 2


async def test_a_late_refusal_of_an_old_token_leaves_the_new_one(
    autojump_clock: MockClock,
) -> None:
    reader = Issuer().reader()
    await read(reader)
    await trio.sleep(900.0)
    assert await read(reader) == "t1"
    await trio.sleep(10.0)
    reader.refused(Secret("t0"))
    assert await read(reader) == "t1"


async def test_a_token_without_an_end_is_kept_until_it_is_refused(
    autojump_clock: MockClock,
) -> None:
    issuer = Issuer(life_s=None)
    reader = issuer.reader()
    await read(reader)
    await trio.sleep(80_000.0)
    assert await read(reader) == "t0"
    reader.refused(Secret("t0"))
    assert await read(reader) == "t1"


async def test_who_leaves_in_the_middle_is_followed_by_one_who_waits(
    autojump_clock: MockClock,
) -> None:
    issuer = Issuer(takes_s=10.0)
    reader = issuer.reader()
    got: list[str] = []

    async def ask() -> None:
        got.append(await read(reader))

    async with trio.open_nursery() as nursery:
        with trio.move_on_after(5.0):
            async with trio.open_nursery() as first:
                first.start_soon(reader.read)
                await trio.testing.wait_all_tasks_blocked()
                for _ in range(3):
                    nursery.start_soon(ask)
                await trio.sleep_forever()
    assert (got, issuer.begun) == (["t0"] * 3, 2)


async def test_who_waits_shares_the_failure(autojump_clock: MockClock) -> None:
    issuer = Issuer(takes_s=1.0, failure=UpstreamError("down", status=500))
    reader = issuer.reader()
    seen: list[InferenceError] = []

    async def ask() -> None:
        try:
            await reader.read()
        except UpstreamError as error:
            seen.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
    assert [error.message for error in seen] == ["down"] * 5
    assert len(set(map(id, seen))) == 5, "one error object is raised only once"
    assert issuer.begun == 1
    with pytest.raises(UpstreamError, match="down") as first:
        await reader.read()
    with pytest.raises(UpstreamError, match="down") as second:
        await reader.read()
    assert first.value is not second.value


async def test_after_a_failure_nobody_asks_again_for_a_growing_time(
    autojump_clock: MockClock,
) -> None:
    issuer = Issuer(failure=UpstreamError("down"))
    reader = issuer.reader()
    times: list[float] = []
    start = trio.current_time()
    while trio.current_time() - start < 200.0:
        before = issuer.begun
        with pytest.raises(UpstreamError, match="down"):
            await reader.read()
        if issuer.begun > before:
            times.append(round(trio.current_time() - start))
        await trio.sleep(0.5)
    assert times == [0, 1, 3, 7, 15, 31, 63, 123, 183]
    issuer.failure = None
    await trio.sleep(60.0)
    assert await read(reader) == "t0"


async def test_a_failed_renewal_leaves_the_old_token_while_it_lives(
    autojump_clock: MockClock,
) -> None:
    issuer = Issuer()
    reader = issuer.reader()
    await read(reader)
    await trio.sleep(900.0)
    issuer.failure = UpstreamError("down")
    assert await read(reader) == "t0"
    assert await read(reader) == "t0"
    assert issuer.begun == 2
    await trio.sleep(100.0)
    with pytest.raises(UpstreamError, match="down"):
        await reader.read()


async def test_a_provider_that_hangs_is_given_up(autojump_clock: MockClock) -> None:
    issuer = Issuer(takes_s=1e6)
    with pytest.raises(UpstreamTimeoutError) as caught:
        await issuer.reader().read()
    assert caught.value.message == "d: the provider 'p' gave no token within 30 s"
    assert caught.value.code == "token_timeout"


async def test_a_provider_s_bug_is_told_without_its_text(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    issuer = Issuer(failure=ValueError("bad key sk-s3cret"))
    with caplog.at_level(logging.DEBUG), pytest.raises(UpstreamAuthError) as caught:
        await issuer.reader().read()
    assert caught.value.message == "d: the provider 'p' failed; see the log"
    assert "failed with ValueError" in caplog.text
    assert "in fetch" in caplog.text, "the place is there"
    assert "s3cret" not in caplog.text


async def test_a_missing_file_of_the_provider_is_a_refusal(
    autojump_clock: MockClock,
) -> None:
    issuer = Issuer(failure=MissingSecretError("the file /key does not exist"))
    with pytest.raises(UpstreamAuthError, match="/key does not exist"):
        await issuer.reader().read()


async def test_a_refused_token_is_fetched_anew_and_the_request_made_again(
    autojump_clock: MockClock,
) -> None:
    keys = OneKey(Issuer().reader())
    first = await keys.current()
    await trio.sleep(10.0)
    assert keys.refused(first, UpstreamAuthError("expired", status=401))
    second = await keys.another([first])
    assert second is not None
    assert second.secret == Secret("t1")


async def test_a_token_that_is_refused_when_it_is_new_is_not_fetched_in_a_loop(
    autojump_clock: MockClock,
) -> None:
    issuer = Issuer()
    keys = OneKey(issuer.reader())
    for _ in range(10):
        grant = await keys.current()
        assert keys.refused(grant, UpstreamAuthError("no", status=403))
        assert await keys.another([grant]) is None
    assert issuer.begun == 1


async def test_renewing_on_demand_fetches_at_once(autojump_clock: MockClock) -> None:
    issuer = Issuer()
    keys = OneKey(issuer.reader())
    await keys.current()
    keys.renew()
    assert (await keys.current()).secret == Secret("t1")


async def test_an_ordinary_renewal_does_not_make_the_session_anew(
    autojump_clock: MockClock,
) -> None:
    keys = OneKey(Issuer().reader())
    await keys.current()
    await trio.sleep(900.0)
    assert (await keys.current()).secret == Secret("t1")
    assert keys.version == 0


async def test_a_token_of_no_length_is_used_once_and_does_not_spin(
    autojump_clock: MockClock,
) -> None:
    issuer = Issuer(life_s=0.0)
    reader = issuer.reader()
    assert [await read(reader), await read(reader)] == ["t0", "t1"]
