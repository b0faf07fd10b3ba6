"""Code of the user's answers as a runner does, and fails as one."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import attrs
import pytest
import trio

from atomr_infer.errors import (
    ConfigError,
    EndpointUnsupportedError,
    EngineCrashedError,
    EngineError,
    InferenceError,
    InternalError,
    InvalidRequestError,
    UnsupportedFeatureError,
)
from atomr_infer.model.batch import (
    ExecuteBatch,
    FinishReason,
    Message,
    Role,
    Sampling,
    TokenChunk,
    Usage,
)
from atomr_infer.model.capabilities import Capabilities, Feature
from atomr_infer.model.embeddings import Embeddings, EmbedRequest
from atomr_infer.model.figures import Figure, Kind, running
from atomr_infer.model.secret import EnvSecret, Secret
from atomr_infer.runtimes.conformance import CHECKS, Check
from atomr_infer.runtimes.conformance_case import ConformanceCase
from atomr_infer.runtimes.contract import RunnerContext
from atomr_infer_python.plugin import PLUGIN
from atomr_infer_python.runner import PythonRunner
from atomr_infer_python.thread import PinnedThread

if TYPE_CHECKING:
    from tests.plugins.python.conftest import Own

Opener = Callable[..., AbstractAsyncContextManager[PythonRunner]]


@pytest.fixture
def opened(own: Own) -> Opener:
    @asynccontextmanager
    async def open_it(name: str, **options: Any) -> AsyncIterator[PythonRunner]:
        deployment = own(name, **options)
        async with PLUGIN.open_runner(deployment, RunnerContext()) as runner:
            yield cast("PythonRunner", runner)

    return open_it


def ask(text: str = "hello there", **sampling: Any) -> ExecuteBatch:
    return ExecuteBatch(
        request_id="r",
        model="m",
        messages=(Message(Role.USER, text),),
        sampling=attrs.evolve(Sampling(), **sampling),
    )


async def answer(runner: PythonRunner, batch: ExecuteBatch) -> list[TokenChunk]:
    with trio.fail_after(60):
        async with runner.execute(batch) as chunks:
            return [chunk async for chunk in chunks]


def text_of(chunks: list[TokenChunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


@pytest.mark.parametrize("check", CHECKS, ids=str)
@pytest.mark.parametrize("name", ["count", "count_in_thread", "Model"])
async def test_conformance(opened: Opener, check: Check, name: str) -> None:
    long = " ".join(f"w{number}" for number in range(40))
    case = ConformanceCase(model="m", prompt=long)
    async with opened(name) as runner:
        await check(runner, case)
        assert runner.active == 0


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("count", {"to": 3}, ["1 ", "2 ", "3 "]),
        ("count_in_thread", {"to": 2}, ["1 ", "2 "]),
        ("whole", {}, ["hello there!"]),
        ("whole_async", {}, ["hello there?"]),
    ],
)
async def test_each_kind_of_function_answers(
    opened: Opener, name: str, options: dict[str, int], said: list[str]
) -> None:
    async with opened(name, **options) as runner:
        found = await answer(runner, ask())
    usage = Usage(input_uncached=2, output_text=len(said), estimated=True)
    assert found == [
        *(TokenChunk(text=text) for text in said),
        TokenChunk(finish_reason=FinishReason.STOP),
        TokenChunk(usage=usage),
    ]


async def test_stop_strings_hold_across_pieces(opened: Opener) -> None:
    async with opened("count") as runner:
        found = await answer(runner, ask(stop=("4 5",)))
    assert text_of(found) == "1 2 3 "
    assert found[-2].stop_sequence == "4 5"


async def test_max_tokens_bounds_what_is_counted(opened: Opener) -> None:
    async with opened("count") as runner:
        found = await answer(runner, ask(max_tokens=2))
    assert text_of(found) == "1 2 "
    assert [c.finish_reason for c in found if c.finish_reason] == [FinishReason.LENGTH]
    async with opened("Model") as runner:
        # Two for each word: the second would be one too many.
        found = await answer(runner, ask(max_tokens=3))
    assert text_of(found) == "none "
    assert found[-1].usage == Usage(input_uncached=4, output_text=2)


@pytest.mark.parametrize("name", ["exact", "exact_first"])
async def test_a_runner_that_knows_more_may_say_it(opened: Opener, name: str) -> None:
    async with opened(name) as runner:
        found = await answer(runner, ask())
    assert found[0] == TokenChunk(text="all", finish_reason=FinishReason.CONTENT_FILTER)
    assert found[1:] == [TokenChunk(usage=Usage(input_uncached=11, output_text=22))]


async def test_a_class_is_made_loaded_asked_and_closed_in_one_thread(
    opened: Opener, capsys: pytest.CaptureFixture[str]
) -> None:
    async with opened("Model", model="m7") as runner:
        assert runner.capabilities == Capabilities(
            features=frozenset(
                {
                    Feature.CHAT,
                    Feature.COMPLETIONS,
                    Feature.EMBEDDINGS,
                    Feature.COUNT_TOKENS,
                }
            ),
            sampling=frozenset({"max_tokens", "stop", "temperature"}),
            max_concurrency=3,
            context_tokens=100,
        )
        assert text_of(await answer(runner, ask(temperature=0.5))) == (
            "m7 hello there 0.5 1 1"
        )
        assert await runner.count_tokens(ask()) == 4
        texts = EmbedRequest(request_id="r", model="m", inputs=("a b", "c"))
        assert await runner.embed(texts) == Embeddings(
            vectors=((3.0, 0.5), (1.0, 0.5)), usage=Usage(input_uncached=6)
        )
        with pytest.raises(InternalError, match="gives 2 vectors for 1 texts"):
            await runner.embed(attrs.evolve(texts, inputs=("odd",)))
    assert capsys.readouterr().out == "closed, 1 thread\n"


HELP = "Told by the model's own code."


async def test_it_tells_figures_of_its_own(opened: Opener) -> None:
    async with opened("Told") as runner:
        assert await runner.figures() == (
            Figure("depth_ratio", Kind.GAUGE, 0.5, HELP),
            Figure("beats", Kind.COUNTER, 3.0, HELP),
        )
        await answer(runner, ask("ours"))
        assert await runner.figures() == (
            running(2),
            Figure("beats", Kind.COUNTER, 4, "Beats."),
        )
    async with opened("count") as runner:
        assert await runner.figures() == ()
    async with opened("Model") as runner, runner.execute(ask("a b")) as chunks:
        await anext(chunks)
        open_requests = Figure("open_requests", Kind.GAUGE, 1.0, HELP)
        assert await runner.figures() == (open_requests,)


@pytest.mark.parametrize(
    ("how", "told"),
    [("integer", 3.0), ("single", 0.5), ("array", 7.0), ("fraction", 0.25)],
)
async def test_any_number_is_a_figure(opened: Opener, how: str, told: float) -> None:
    async with opened("Told") as runner:
        for way in (how, f"as a figure: {how}"):
            await answer(runner, ask(way))
            [figure] = await runner.figures()
            assert (type(figure.value), figure.value) == (float, told)


@pytest.mark.parametrize(
    ("how", "error", "problem"),
    [
        ("bug", EngineError, "Told failed: ZeroDivisionError: in the code"),
        ("name", InternalError, "figures of .*Told: a figure is called 'a b'"),
        ("text", InternalError, "figure open is told as str, not as a number"),
        ("flag", InternalError, "figure open is told as bool, not as a number"),
        ("many", InternalError, "open is told as ndarray, not as a number: only"),
        ("huge", InternalError, "open is told as int, not as a number: int too large"),
        ("names", InternalError, "Told tells 1 as int; it tells numbers by"),
        ("number", InternalError, "figures of .*Told returns int; it tells numbers"),
    ],
)
async def test_figures_that_are_none_are_said_and_it_goes_on(
    opened: Opener, how: str, error: type[InferenceError], problem: str
) -> None:
    async with opened("Told") as runner:
        await answer(runner, ask(how))
        with pytest.raises(error, match=problem):
            await runner.figures()
        assert text_of(await answer(runner, ask("well"))) == "told"
        assert len(await runner.figures()) == 2


async def test_an_object_that_is_made_already_answers(opened: Opener) -> None:
    async with opened("READY") as runner:
        assert text_of(await answer(runner, ask("x"))).startswith("made x None ")
    with pytest.raises(ConfigError, match="is made already, and takes no options"):
        async with opened("READY", a=1):
            pass


async def test_a_function_has_neither_vectors_nor_counts(opened: Opener) -> None:
    texts = EmbedRequest(request_id="r", model="m", inputs=("a",))
    async with opened("count") as runner:
        with pytest.raises(EndpointUnsupportedError, match="embeddings"):
            await runner.embed(texts)
        with pytest.raises(EndpointUnsupportedError, match="counting tokens"):
            await runner.count_tokens(ask())


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("bug", EngineError, "own.py:raises failed: ZeroDivisionError: in the code"),
        ("memory", EngineError, "own.py:raises is out of memory: MemoryError"),
        ("refuse", InvalidRequestError, "not that"),
        ("absent", UnsupportedFeatureError, "NotImplementedError: no poems"),
        ("exit", EngineError, "own.py:raises failed: SystemExit: 3"),
    ],
)
async def test_what_it_raises_is_an_error_of_ours(
    opened: Opener, text: str, error: type[InferenceError], message: str
) -> None:
    async with opened("raises") as runner:
        async with runner.execute(ask(text)) as chunks:
            assert (await anext(chunks)).text == "a "
            with pytest.raises(error) as caught:
                await anext(chunks)
        assert type(caught.value) is error
        assert caught.value.message.endswith(message)
        # One that failed costs the others nothing.
        assert text_of(await answer(runner, ask("well"))) == "a "


async def test_a_crash_that_it_tells_is_the_runner_s_end(opened: Opener) -> None:
    async with opened("raises") as runner:
        with pytest.raises(EngineCrashedError, match="the device is lost"):
            await answer(runner, ask("poison"))
        with trio.fail_after(10):
            assert (await runner.failed()).message == "the device is lost"
        with pytest.raises(EngineCrashedError, match="the device is lost"):
            await answer(runner, ask("well"))


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (
            "wrong",
            "yields list; a piece of an answer is a str, a TokenChunk",
        ),
        ("returns_nothing", "returns NoneType; an answer is yielded piece by piece"),
    ],
)
async def test_what_is_no_answer_is_said_to_be_none(
    opened: Opener, name: str, problem: str
) -> None:
    async with opened(name) as runner:
        with pytest.raises(InternalError, match=problem):
            await answer(runner, ask())


@pytest.mark.parametrize(
    ("name", "error", "problem"),
    [
        ("NOT_CALLABLE", ConfigError, "is 7; it must be a function, a class"),
        ("Useless", ConfigError, "has neither generate.request. nor embed.texts."),
        ("BadNumber", ConfigError, "max_concurrency of .* is 0; it must be a whole"),
        ("BadLoad", EngineError, "BadLoad failed: FileNotFoundError: weights.bin"),
    ],
)
async def test_what_cannot_be_opened_says_why(
    opened: Opener, name: str, error: type[Exception], problem: str
) -> None:
    with pytest.raises(error, match=problem):
        async with opened(name):
            pass


async def test_an_object_that_is_no_plugin_gets_no_credential(own: Own) -> None:
    deployment = attrs.evolve(own("READY"), credential=EnvSecret("KEY"))
    context = RunnerContext(credential=Secret("k"))
    with pytest.raises(ConfigError, match=r"READY is none; leave it out"):
        async with PLUGIN.open_runner(deployment, context):
            pass


async def test_leaving_closes_a_generator_behind_its_step(opened: Opener) -> None:
    async with opened("Model", step_s=0.05) as runner:
        for _ in range(3):
            with trio.move_on_after(0.12):
                await answer(runner, ask("a b c d e f g h"))
            assert runner.active == 0
        # The last word is how many are open.
        assert text_of(await answer(runner, ask("x"))).endswith(" 1 1")


async def test_a_call_that_has_not_begun_when_it_is_cancelled_never_does() -> None:
    begun, release = threading.Event(), threading.Event()
    ran: list[str] = []

    def hold() -> None:
        begun.set()
        release.wait(60)

    with PinnedThread("t") as thread:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(thread.run, hold)
            await trio.to_thread.run_sync(begun.wait, 60)
            with trio.CancelScope() as scope:
                scope.cancel()
                await thread.run(lambda: ran.append("second"))
            release.set()
        await thread.run(lambda: ran.append("third"))
    assert ran == ["third"]
