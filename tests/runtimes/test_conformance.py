"""Each way to break the contract is caught by the check of its rule, and no other."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from atomr_infer.errors import ConfigError, InvalidRequestError, PluginError
from atomr_infer.model.batch import (
    ExecuteBatch,
    FinishReason,
    RawPart,
    Sampling,
    TokenChunk,
)
from atomr_infer.model.deployment import Deployment
from atomr_infer.runtimes.conformance import CHECKS
from atomr_infer.runtimes.conformance_case import ConformanceCase, ConformanceError
from atomr_infer.runtimes.plugin_check import check_plugin
from atomr_infer.testing.mock import PLUGIN, MockPlugin, MockRunner
from atomr_infer.testing.mock_script import MockScript

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from trio.testing import MockClock

    from atomr_infer.model.capabilities import Capabilities
    from atomr_infer.runtimes.contract import RuntimePlugin
    from tests.runtimes.conftest import Site

    Chunks = AsyncIterator[TokenChunk]
    Sent = AsyncGenerator[TokenChunk, None]

CASE = ConformanceCase(model="m", answer_timeout_s=100, leave_timeout_s=5)
SCRIPT = MockScript(reply="one two three four five six seven", tokens=50, delay_s=0.5)


class Broken(MockRunner):
    """A mock with one thing wrong; subclasses say which."""

    def __init__(self) -> None:
        super().__init__(SCRIPT)

    @asynccontextmanager
    async def execute(self, batch: ExecuteBatch) -> AsyncIterator[Chunks]:
        async with (
            super().execute(self.asked(batch)) as chunks,
            aclosing(self.sent(chunks)) as sent,
        ):
            yield sent

    def asked(self, batch: ExecuteBatch) -> ExecuteBatch:
        return batch

    async def sent(self, chunks: Chunks) -> Sent:
        async for chunk in chunks:
            yield chunk


class FinishesTwice(Broken):
    async def sent(self, chunks: Chunks) -> Sent:
        async for chunk in chunks:
            yield chunk
            if chunk.finish_reason is not None:
                yield chunk


class NeverFinishes(Broken):
    async def sent(self, chunks: Chunks) -> Sent:
        async for chunk in chunks:
            yield attrs.evolve(chunk, finish_reason=None)


class SpeaksAfterItsFinish(Broken):
    async def sent(self, chunks: Chunks) -> Sent:
        async for chunk in chunks:
            if chunk.usage is not None:
                yield TokenChunk(text="by the way")
            yield chunk


class FinishesOnlyTheFirstOfTwo(Broken):
    async def sent(self, chunks: Chunks) -> Sent:
        async for chunk in chunks:
            if chunk.index == 1:
                chunk = attrs.evolve(chunk, finish_reason=None)  # noqa: PLW2901
            yield chunk


class HasNoUsage(Broken):
    async def sent(self, chunks: Chunks) -> Sent:
        async for chunk in chunks:
            if chunk.usage is None:
                yield chunk


class SendsSomethingBehindUsage(Broken):
    async def sent(self, chunks: Chunks) -> Sent:
        async for chunk in chunks:
            yield chunk
        yield TokenChunk()


class KeepsRunningWhenLeft(Broken):
    @property
    def active(self) -> int:
        return super().active + self.left_early


class HidesWhatRuns(Broken):
    @property
    def active(self) -> int:
        return 0


class IsSlowToLeave(Broken):
    @asynccontextmanager
    async def execute(self, batch: ExecuteBatch) -> AsyncIterator[Chunks]:
        async with super().execute(batch) as chunks:
            try:
                yield chunks
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(6)


class RaisesWhatItMeets(Broken):
    def asked(self, batch: ExecuteBatch) -> ExecuteBatch:
        if any(isinstance(p, RawPart) for p in batch.messages[0].content or ()):
            raise KeyError("type")
        return batch


class WrapsErrorsInGroups(Broken):
    @asynccontextmanager
    async def execute(self, batch: ExecuteBatch) -> AsyncIterator[Chunks]:
        async with super().execute(batch) as chunks, trio.open_nursery():
            yield chunks


class SwallowsCancellation(Broken):
    async def sent(self, chunks: Chunks) -> Sent:
        try:
            async for chunk in chunks:
                yield chunk
        except trio.Cancelled:
            return


class EndsAllWhenOneIsLeft(Broken):
    @asynccontextmanager
    async def execute(self, batch: ExecuteBatch) -> AsyncIterator[Chunks]:
        self.left_before = self.left_early
        async with super().execute(batch) as chunks:
            yield chunks

    async def sent(self, chunks: Chunks) -> Sent:
        async for chunk in chunks:
            if self.left_early != self.left_before:
                return
            yield chunk


class FailsAllWhenOneIsLeft(EndsAllWhenOneIsLeft):
    async def sent(self, chunks: Chunks) -> Sent:
        async for chunk in chunks:
            if self.left_early != self.left_before:
                raise InvalidRequestError("the shared stream is gone")
            yield chunk


class WaitsForTheSlowestReader(Broken):
    def __init__(self) -> None:
        super().__init__()
        self.lock = trio.Lock()

    async def sent(self, chunks: Chunks) -> Sent:
        async with self.lock:
            async for chunk in chunks:
                yield chunk


class IgnoresMaxTokens(Broken):
    def asked(self, batch: ExecuteBatch) -> ExecuteBatch:
        if batch.sampling.max_tokens == 4:
            return attrs.evolve(batch, sampling=Sampling())
        return batch


class CallsEveryEndAStop(Broken):
    async def sent(self, chunks: Chunks) -> Sent:
        async for chunk in chunks:
            if chunk.finish_reason is not None:
                chunk = attrs.evolve(chunk, finish_reason=FinishReason.STOP)  # noqa: PLW2901
            yield chunk


class ClaimsStopAndIgnoresIt(Broken):
    def asked(self, batch: ExecuteBatch) -> ExecuteBatch:
        return attrs.evolve(batch, sampling=attrs.evolve(batch.sampling, stop=()))


class ClaimsNAndGivesOne(Broken):
    def asked(self, batch: ExecuteBatch) -> ExecuteBatch:
        return attrs.evolve(batch, sampling=attrs.evolve(batch.sampling, n=1))


class ClaimsAContextThatNothingEnforces(Broken):
    @property
    def capabilities(self) -> Capabilities:
        return attrs.evolve(super().capabilities, context_tokens=64)


class ClaimsAFieldThatIsNone(Broken):
    @property
    def capabilities(self) -> Capabilities:
        return attrs.evolve(super().capabilities, sampling=frozenset({"warmth"}))


class ChangesItsMind(Broken):
    @property
    def capabilities(self) -> Capabilities:
        more = len(self.batches) + 1
        return attrs.evolve(super().capabilities, max_concurrency=more)


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (FinishesTwice, 1),
        (NeverFinishes, 1),
        (SpeaksAfterItsFinish, 1),
        (FinishesOnlyTheFirstOfTwo, 1),
        (HasNoUsage, 2),
        (SendsSomethingBehindUsage, 2),
        (KeepsRunningWhenLeft, 3),
        (HidesWhatRuns, 3),
        (IsSlowToLeave, 3),
        (RaisesWhatItMeets, 4),
        (WrapsErrorsInGroups, 4),
        (SwallowsCancellation, 4),
        (EndsAllWhenOneIsLeft, 5),
        (FailsAllWhenOneIsLeft, 5),
        (WaitsForTheSlowestReader, 5),
        (IgnoresMaxTokens, 6),
        (CallsEveryEndAStop, 6),
        (ClaimsStopAndIgnoresIt, 7),
        (ClaimsNAndGivesOne, 7),
        (ClaimsAContextThatNothingEnforces, 7),
        (ClaimsAFieldThatIsNone, 7),
        (ChangesItsMind, 7),
    ],
)
async def test_a_broken_runner_is_caught_by_the_check_of_its_rule(
    broken: Callable[[], MockRunner], rule: int, autojump_clock: MockClock
) -> None:
    caught: list[tuple[int, int]] = []

    for check in CHECKS:
        try:
            await check(broken(), CASE)
        except ConformanceError as error:
            caught.append((check.rule, error.rule))

    assert caught == [(rule, rule)]


async def test_a_runner_that_hangs_is_reported_in_bounded_time(
    autojump_clock: MockClock,
) -> None:
    for check in CHECKS:
        runner = MockRunner(MockScript(hang_after=0))
        with trio.fail_after(1000), pytest.raises(ConformanceError):
            await check(runner, CASE)


def test_the_checks_are_the_contract_s_rules_in_order() -> None:
    assert [check.rule for check in CHECKS] == [1, 2, 3, 4, 5, 6, 7]
    assert str(CHECKS[0]) == "rule-1-every-index-finishes-once"


HEAVY_PLUGIN = """
import wave
from atomr_infer.testing.mock import MockPlugin
class Plugin(MockPlugin):
    name = "heavy"
    def validate(self, deployment): ...
PLUGIN = Plugin()
"""


def install(
    site: Site, plugin_module: Callable[[str, str], None], name: str, source: str
) -> None:
    plugin_module(f"conformance_{name}", source)
    site.add(f"{name}-dist", entry_points=f"{name} = conformance_{name}:PLUGIN")


def imported(name: str) -> RuntimePlugin:
    module = __import__(f"conformance_{name}")
    plugin: RuntimePlugin = module.PLUGIN
    return plugin


def test_a_plugin_that_imports_its_engine_when_it_is_imported_is_caught(
    site: Site, plugin_module: Callable[[str, str], None]
) -> None:
    install(site, plugin_module, "heavy", HEAVY_PLUGIN)
    deployment = Deployment(name="d", runtime="heavy")

    with pytest.raises(ConformanceError) as raised:
        check_plugin(
            imported("heavy"),
            deployment,
            heavy=("wave", "torch"),
            installed=site.installed,
        )

    assert str(raised.value) == (
        "plugin: importing conformance_heavy imports wave; import them in open_runner"
    )


def test_a_plugin_that_accepts_any_option_is_caught(
    site: Site, plugin_module: Callable[[str, str], None]
) -> None:
    install(site, plugin_module, "lax", HEAVY_PLUGIN.replace('"heavy"', '"lax"'))
    deployment = Deployment(name="d", runtime="lax")

    with pytest.raises(ConformanceError, match="accepts an option that does not"):
        check_plugin(imported("lax"), deployment, installed=site.installed)


def test_a_plugin_that_does_not_name_the_option_is_caught(
    site: Site, plugin_module: Callable[[str, str], None]
) -> None:
    source = HEAVY_PLUGIN.replace('"heavy"', '"vague"').replace(
        ": ...",
        ":\n        from atomr_infer.errors import ConfigError\n"
        "        if deployment.options: raise ConfigError('no')",
    )
    install(site, plugin_module, "vague", source)
    deployment = Deployment(name="d", runtime="vague")

    with pytest.raises(ConformanceError, match="without naming it: no"):
        check_plugin(imported("vague"), deployment, installed=site.installed)


def test_a_plugin_that_refuses_its_own_example_shows_its_reason() -> None:
    bad = Deployment(name="d", runtime="mock", options={"tokens": -1})

    with pytest.raises(ConfigError, match="tokens: -1"):
        check_plugin(PLUGIN, bad)


def test_a_plugin_that_is_not_the_registered_one_is_caught() -> None:
    with pytest.raises(ConformanceError, match="another object is registered as"):
        check_plugin(MockPlugin(on_open=print), Deployment(name="d", runtime="mock"))


def test_a_plugin_that_is_not_registered_is_caught(site: Site) -> None:
    with pytest.raises(PluginError, match="no runtime is called 'mock'"):
        check_plugin(
            PLUGIN,
            Deployment(name="d", runtime="mock"),
            installed=site.installed,
        )
