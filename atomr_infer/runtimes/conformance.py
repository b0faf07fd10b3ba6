"""The suite that every runtime must pass: the contract's rules as checks.

A plugin's tests open a runner and run each check on it::

    @pytest.mark.parametrize("check", CHECKS, ids=str)
    async def test_conformance(check: Check) -> None:
        async with PLUGIN.open_runner(deployment, RunnerContext()) as runner:
            await check(runner, ConformanceCase(model="tiny"))

and :func:`~atomr_infer.runtimes.plugin_check.check_plugin` on the plugin.  Each
check speaks for one rule of :mod:`atomr_infer.runtimes.contract` and passes
over breaches of the others, so that a failure names what to mend.  What a
runner does not claim in its capabilities is not asked of it.

The checks send real generations, and bound each with ``max_tokens``; on a slow
engine the suite takes the time of about forty short answers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import attrs
import trio

from atomr_infer.errors import ContextLengthError, InferenceError
from atomr_infer.model.batch import (
    ExecuteBatch,
    FinishReason,
    Message,
    RawChunk,
    RawPart,
    Role,
    Sampling,
    TokenChunk,
)
from atomr_infer.model.capabilities import ALL_SAMPLING
from atomr_infer.runtimes.conformance_case import (
    BOUNDED,
    ConformanceCase,
    ConformanceError,
)
from atomr_infer.runtimes.contract import ModelRunner

_TWO_ANSWERS = attrs.evolve(BOUNDED, n=2)
_FEW_TOKENS = 4
# A small model on a busy machine has ended before anybody looks.
_LOOKS = 5
# More at once finds nothing new and takes long where one core runs the model.
_MOST_AT_ONCE = 4


@attrs.frozen
class Check:
    """One rule of the contract, to be called with a runner and a case.

    Attributes:
        rule: its number in the contract's list.
        promise: what holds when the check passes.
    """

    rule: int
    promise: str
    _run: Callable[[ModelRunner, ConformanceCase], Awaitable[None]]

    async def __call__(self, runner: ModelRunner, case: ConformanceCase) -> None:
        """Run the check on an idle runner, and leave it idle.

        Raises:
            ConformanceError: the runner breaks the rule.
            InferenceError: the runner could not answer at all.
        """
        try:
            await self._run(runner, case)
        except trio.TooSlowError as error:
            problem = f"no answer within {case.answer_timeout_s} s"
            raise ConformanceError(self.rule, problem) from error

    def __str__(self) -> str:
        """Return a short name, for test ids."""
        return f"rule-{self.rule}-{self.promise.replace(' ', '-')}"


async def _collect(
    runner: ModelRunner, case: ConformanceCase, batch: ExecuteBatch
) -> list[TokenChunk]:
    with trio.fail_after(case.answer_timeout_s):
        async with runner.execute(batch) as chunks:
            return [_canonical(chunk) async for chunk in chunks]


def _canonical(chunk: TokenChunk | RawChunk) -> TokenChunk:
    # Rule 8: a request without a source is never answered by raw chunks.
    if not isinstance(chunk, TokenChunk):
        raise ConformanceError(8, "a raw chunk answers a request without a source")
    return chunk


def _text(chunks: Sequence[TokenChunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


# --- rule 1 -------------------------------------------------------------------


async def _finishes_once(runner: ModelRunner, case: ConformanceCase) -> None:
    _check_finishes(await _collect(runner, case, case.ask()))
    if "n" in runner.capabilities.sampling:
        _check_finishes(await _collect(runner, case, case.ask(_TWO_ANSWERS)))


def _check_finishes(chunks: Sequence[TokenChunk]) -> None:
    finished: set[int] = set()
    open_indices: set[int] = set()
    for chunk in chunks:
        speaks = chunk.has_content or chunk.finish_reason is not None
        if speaks and chunk.index in finished:
            raise ConformanceError(1, f"{chunk!r} follows the finish of its index")
        if chunk.finish_reason is not None:
            finished.add(chunk.index)
        elif speaks:
            open_indices.add(chunk.index)
    if not finished or open_indices - finished:
        raise ConformanceError(1, f"indices {sorted(open_indices)} do not all finish")


# --- rule 2 -------------------------------------------------------------------


async def _usage_is_last(runner: ModelRunner, case: ConformanceCase) -> None:
    chunks = await _collect(runner, case, case.ask())
    with_usage = [at for at, chunk in enumerate(chunks) if chunk.usage is not None]
    if with_usage != [len(chunks) - 1]:
        problem = f"of {len(chunks)} chunks, those at {with_usage} carry usage"
        raise ConformanceError(2, f"{problem}; the last one must, and no other")


# --- rule 3 -------------------------------------------------------------------


async def _leaving_frees(runner: ModelRunner, case: ConformanceCase) -> None:
    for chunks_taken in (0, *(1,) * _LOOKS):
        with trio.fail_after(case.answer_timeout_s):
            async with runner.execute(case.ask()) as chunks:
                for _ in range(chunks_taken):
                    await anext(chunks)
                seen_running = chunks_taken > 0 and runner.active > 0
                left_at = trio.current_time()
        _check_freed(runner, case, left_at)
        if seen_running:
            break
    else:
        raise ConformanceError(3, "active is 0 while a generation runs")
    left_at = trio.current_time()
    with trio.move_on_after(case.answer_timeout_s) as scope:
        async with runner.execute(case.ask()) as chunks:
            async for _ in chunks:
                left_at = trio.current_time()
                scope.cancel()
    _check_freed(runner, case, left_at)


def _check_freed(runner: ModelRunner, case: ConformanceCase, left_at: float) -> None:
    took_s = trio.current_time() - left_at
    if runner.active:
        problem = f"active is {runner.active} after the only block was left"
        raise ConformanceError(3, problem)
    if took_s > case.leave_timeout_s:
        raise ConformanceError(3, f"leaving the block took {took_s:.1f} s")


# --- rule 4 -------------------------------------------------------------------


class _MarkerError(Exception):
    """What the block's own body raises; nobody else does."""


def _interrupt() -> None:
    raise _MarkerError


async def _raises_only_ours(runner: ModelRunner, case: ConformanceCase) -> None:
    for batch in _odd_requests(case):
        await _answer_or_inference_error(runner, case, batch)
    await _body_error_passes(runner, case)
    with trio.move_on_after(case.answer_timeout_s) as scope:
        async with runner.execute(case.ask()) as chunks:
            async for _ in chunks:
                scope.cancel()
    if scope.cancel_called and not scope.cancelled_caught:
        raise ConformanceError(4, "the block or the iteration swallows cancellation")


def _odd_requests(case: ConformanceCase) -> tuple[ExecuteBatch, ...]:
    part = RawPart("conformance", b'{"type": "conformance"}')
    return (
        attrs.evolve(case.ask(), messages=(Message(Role.USER, (part,)),)),
        attrs.evolve(case.ask(), messages=(Message(Role.ASSISTANT, None),)),
        attrs.evolve(case.ask(), extra={"conformance": b'{"unknown": true}'}),
        attrs.evolve(case.ask(), model="conformance-no-such-model"),
    )


async def _answer_or_inference_error(
    runner: ModelRunner, case: ConformanceCase, batch: ExecuteBatch
) -> None:
    try:
        await _collect(runner, case, batch)
    except InferenceError:
        return
    except trio.TooSlowError:
        raise
    except Exception as error:
        name = type(error).__name__
        problem = f"{name} left execute; only InferenceError may: {error}"
        raise ConformanceError(4, problem) from error


async def _body_error_passes(runner: ModelRunner, case: ConformanceCase) -> None:
    try:
        async with runner.execute(case.ask()) as chunks:
            await anext(chunks)
            _interrupt()
    except _MarkerError:
        return
    except Exception as error:
        name = type(error).__name__
        problem = f"an error of the block's own body came out as {name}"
        raise ConformanceError(4, problem) from error


# --- rule 5 -------------------------------------------------------------------

# How many chunks finish an index, and how many carry usage: what two answers to
# one prompt have in common where sampling makes their words differ.
_Shape = tuple[int, int]
# What came of a generation: its shape, an error's text, None when it was left.
_Outcome = _Shape | str | None
_OddOne = Callable[[ModelRunner, ConformanceCase, trio.Event], Awaitable[_Outcome]]


def _shape(chunks: Sequence[TokenChunk]) -> _Shape:
    finishes = sum(chunk.finish_reason is not None for chunk in chunks)
    return finishes, sum(chunk.usage is not None for chunk in chunks)


async def _independent(runner: ModelRunner, case: ConformanceCase) -> None:
    alone = _shape(await _collect(runner, case, case.ask()))
    others = min(runner.capabilities.max_concurrency, _MOST_AT_ONCE) - 1
    if others:
        outcomes = await _beside(runner, case, others, _leave)
        outcomes += await _beside(runner, case, others, _pause)
    else:
        outcomes = [await _leave(runner, case, trio.Event())]
        outcomes.append(await _outcome(_read(runner, case)))
    if set(outcomes) - {None} != {alone}:
        problem = f"(finishes, usages) is {alone} alone, but beside others {outcomes}"
        raise ConformanceError(5, problem)


async def _beside(
    runner: ModelRunner, case: ConformanceCase, others: int, odd_one: _OddOne
) -> list[_Outcome]:
    """Run ``others`` whole answers beside one that behaves oddly."""
    outcomes: list[_Outcome] = []
    others_done = trio.Event()

    async def whole() -> None:
        outcomes.append(await _outcome(_read(runner, case)))
        if len(outcomes) == others:
            others_done.set()

    async with trio.open_nursery() as nursery:
        for _ in range(others):
            nursery.start_soon(whole)
        odd_outcome = await _outcome(odd_one(runner, case, others_done))
    return [*outcomes, odd_outcome]


async def _outcome(answering: Awaitable[_Outcome]) -> _Outcome:
    try:
        return await answering
    except (InferenceError, trio.TooSlowError) as error:
        return f"{type(error).__name__}: {error}"


async def _read(runner: ModelRunner, case: ConformanceCase) -> _Outcome:
    return _shape(await _collect(runner, case, case.ask()))


async def _leave(
    runner: ModelRunner, case: ConformanceCase, _others_done: trio.Event
) -> _Outcome:
    with trio.fail_after(case.answer_timeout_s):
        async with runner.execute(case.ask()) as chunks:
            await anext(chunks)
    return None


async def _pause(
    runner: ModelRunner, case: ConformanceCase, others_done: trio.Event
) -> _Outcome:
    # Its reader sleeps until the others are through: they must not wait for it.
    with trio.fail_after(2 * case.answer_timeout_s):
        async with runner.execute(case.ask()) as chunks:
            read = [_canonical(await anext(chunks))]
            await others_done.wait()
            read.extend([_canonical(chunk) async for chunk in chunks])
    return _shape(read)


# --- rule 6 -------------------------------------------------------------------


async def _max_tokens_bounds(runner: ModelRunner, case: ConformanceCase) -> None:
    if "max_tokens" not in runner.capabilities.sampling:
        return
    chunks = await _collect(runner, case, case.ask(Sampling(max_tokens=_FEW_TOKENS)))
    spent = [chunk.usage.output_tokens for chunk in chunks if chunk.usage is not None]
    if any(tokens > _FEW_TOKENS for tokens in spent):
        problem = f"max_tokens was {_FEW_TOKENS} and {spent} output tokens were spent"
        raise ConformanceError(6, problem)
    reasons = {chunk.finish_reason for chunk in chunks} - {None}
    if reasons - {FinishReason.LENGTH}:
        raise ConformanceError(6, f"cut by max_tokens, but finished with {reasons}")


# --- rule 7 -------------------------------------------------------------------


async def _capabilities_are_true(runner: ModelRunner, case: ConformanceCase) -> None:
    capabilities = runner.capabilities
    unknown = capabilities.sampling - ALL_SAMPLING
    if unknown or capabilities.max_concurrency < 1:
        raise ConformanceError(7, f"{capabilities!r} does not make sense")
    if "n" in capabilities.sampling:
        await _n_gives_n_answers(runner, case)
    if "stop" in capabilities.sampling:
        await _stop_stops(runner, case)
    if capabilities.context_tokens is not None:
        await _context_is_bounded(runner, case, capabilities.context_tokens)
    if runner.capabilities != capabilities:
        raise ConformanceError(7, "capabilities changed while the runner was open")


async def _n_gives_n_answers(runner: ModelRunner, case: ConformanceCase) -> None:
    chunks = await _collect(runner, case, case.ask(_TWO_ANSWERS))
    indices = {chunk.index for chunk in chunks}
    if indices != {0, 1}:
        raise ConformanceError(7, f"n was 2 and the answers are {sorted(indices)}")


async def _stop_stops(runner: ModelRunner, case: ConformanceCase) -> None:
    greedy = BOUNDED
    if "temperature" in runner.capabilities.sampling:
        greedy = attrs.evolve(BOUNDED, temperature=0.0)
    answer = _text(await _collect(runner, case, case.ask(greedy)))
    # From the middle, so that something is left before it and cut behind it.
    word = answer[len(answer) // 2 :][:8].strip() or answer
    stopping = case.ask(attrs.evolve(greedy, stop=(word,)))
    stopped = _text(await _collect(runner, case, stopping))
    if word in stopped:
        raise ConformanceError(7, f"stop was {word!r} and the answer is {stopped!r}")


async def _context_is_bounded(
    runner: ModelRunner, case: ConformanceCase, context_tokens: int
) -> None:
    # A word is at least a token in every tokenizer.
    long_message = Message(Role.USER, "word " * (context_tokens + 1))
    try:
        await _collect(runner, case, attrs.evolve(case.ask(), messages=(long_message,)))
    except ContextLengthError:
        return
    problem = f"a prompt of more than context_tokens={context_tokens} was answered"
    raise ConformanceError(7, problem)


CHECKS: tuple[Check, ...] = (
    Check(1, "every index finishes once", _finishes_once),
    Check(2, "usage is on the last chunk", _usage_is_last),
    Check(3, "leaving early frees the engine", _leaving_frees),
    Check(4, "only inference errors leave", _raises_only_ours),
    Check(5, "generations are independent", _independent),
    Check(6, "max tokens bounds the answer", _max_tokens_bounds),
    Check(7, "capabilities are true", _capabilities_are_true),
)
"""Every rule's check, in the contract's order."""
