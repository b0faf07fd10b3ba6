"""Embeddings and counts of tokens cross the bridge, and so do their failures."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import attrs
import msgspec
import pytest
import trio
import trio.testing

from atomr_infer.bridge import BridgedRunner
from atomr_infer.bridge.protocol.calls import ParentCall, answer_to
from atomr_infer.bridge.protocol.frames import (
    Chunk,
    Count,
    Counted,
    Embed,
    FrameError,
    Infer,
    Tensors,
    Vectors,
)
from atomr_infer.bridge.protocol.values import (
    EmbeddingsWire,
    batch_to_wire,
    chunk_to_wire,
    embed_request_from_wire,
    embed_request_to_wire,
    embeddings_from_wire,
    embeddings_to_wire,
    infer_request_from_wire,
    infer_request_to_wire,
    inferred_to_wire,
)
from atomr_infer.errors import (
    ContextLengthError,
    EndpointUnsupportedError,
    EngineCrashedError,
    EngineError,
    InternalError,
    InvalidRequestError,
    encode,
)
from atomr_infer.model.asker import Asker
from atomr_infer.model.batch import ExecuteBatch, TokenChunk, Usage
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.embeddings import Embeddings, EmbedRequest
from atomr_infer.model.tensors import Datatype, Inferred, InferRequest, Tensor
from atomr_infer.runtimes.contract import RunnerContext
from atomr_infer.testing.mock import PLUGIN as MOCK

Opener = Callable[..., AbstractAsyncContextManager[BridgedRunner]]
Ask = Callable[..., ExecuteBatch]
EMBEDDINGS = Embeddings(
    vectors=((0.1, -1e300), (3.0, 0.0)),
    usage=Usage(input_uncached=5),
    model="m",
)


@pytest.fixture
async def runner(bridged: Opener) -> AsyncIterator[BridgedRunner]:
    async with bridged() as opened:
        yield opened


def texts(*inputs: str | tuple[int, ...]) -> EmbedRequest:
    return EmbedRequest(request_id="r", model="m", inputs=inputs)


async def test_vectors_come_back_as_the_runner_made_them(runner: BridgedRunner) -> None:
    assert await runner.embed(texts("a", (1, 2, 3))) == Embeddings(
        vectors=((1.0, 0.1), (3.0, 0.1)), usage=Usage(input_uncached=2), model="m"
    )
    assert runner.active == 0


BITS = Tensor("x", Datatype.INT8, (2, 1), b"\x01\x02")


def tensors(*inputs: Tensor, outputs: tuple[str, ...] = ()) -> InferRequest:
    return InferRequest(request_id="r", model="m", inputs=inputs, outputs=outputs)


async def test_tensors_come_back_as_the_runner_made_them(runner: BridgedRunner) -> None:
    assert await runner.infer(tensors(BITS)) == Inferred(
        outputs=(BITS, BITS), usage=Usage(input_uncached=1)
    )
    with pytest.raises(EngineError) as caught:
        await runner.infer(tensors(BITS, outputs=("refuse",)))
    assert encode(caught.value) == encode(EngineError("no such kernel", code="xid_13"))
    assert runner.active == 0


async def test_tensors_that_no_frame_carries_are_the_client_s_fault(
    runner: BridgedRunner,
) -> None:
    size = 33 * 1024 * 1024
    large = Tensor("x", Datatype.INT8, (size,), bytes(size))
    with pytest.raises(InvalidRequestError, match="the bridge carries 33554432"):
        await runner.infer(tensors(large))
    size = 20 * 1024 * 1024
    doubled = Tensor("x", Datatype.INT8, (size,), bytes(size))
    with pytest.raises(InternalError, match="the answer is lost"):
        await runner.infer(tensors(doubled))
    assert (await runner.infer(tensors(BITS))).outputs == (BITS, BITS)


async def test_a_prompt_s_tokens_are_counted(runner: BridgedRunner, ask: Ask) -> None:
    assert await runner.count_tokens(ask("a b c")) == 3


async def test_an_error_keeps_its_class_and_fields(runner: BridgedRunner) -> None:
    with pytest.raises(ContextLengthError) as caught:
        await runner.embed(texts("refuse"))
    assert encode(caught.value) == encode(ContextLengthError("too long", param="input"))


async def test_vectors_of_several_lengths_are_the_runtime_s_failure(
    runner: BridgedRunner,
) -> None:
    with pytest.raises(InternalError, match="vectors of 1 and 2 dimensions"):
        await runner.embed(texts("ragged"))
    assert len((await runner.embed(texts("a"))).vectors) == 1


async def test_cancellation_reaches_the_child_before_it_returns(
    runner: BridgedRunner, ask: Ask
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runner.embed, texts("stall"))
        await trio.testing.wait_all_tasks_blocked()
        assert runner.active == 1
        nursery.cancel_scope.cancel()
    assert runner.active == 0
    async with runner.execute(ask("state")) as chunks:
        assert (await anext(chunks)).text == "0 0"


async def test_a_child_that_dies_ends_every_question(runner: BridgedRunner) -> None:
    with pytest.raises(EngineCrashedError, match="exited with status 3"):
        await runner.embed(texts("exit"))
    with pytest.raises(EngineCrashedError, match="exited with status 3"):
        await runner.embed(texts("a"))


async def test_a_runner_that_cannot_says_so() -> None:
    deployment = Deployment(name="d", runtime="mock")
    batch = ExecuteBatch(request_id="r", model="m", messages=())
    async with MOCK.open_runner(deployment, RunnerContext()) as plain:
        for frame, what in (
            (Embed(1, embed_request_to_wire(texts("a"))), "embeddings"),
            (Count(2, batch_to_wire(batch)), "counting tokens"),
            (Infer(3, infer_request_to_wire(tensors(BITS))), "raw tensors"),
        ):
            with pytest.raises(EndpointUnsupportedError, match=what):
                await answer_to(plain, frame)


async def test_an_end_without_an_answer_is_an_error() -> None:
    call = ParentCall(1)
    call.end(None)
    with pytest.raises(InternalError, match="without an answer"):
        await call.value()


def test_what_is_no_answer_breaks_the_protocol() -> None:
    with pytest.raises(FrameError, match="a chunk for a question"):
        ParentCall(1).take(Chunk(1, chunk_to_wire(TokenChunk(text="x"))))
    broken = embeddings_to_wire(EMBEDDINGS)
    cut = EmbeddingsWire(broken.packed[:-8], 2, broken.usage, None)
    with pytest.raises(FrameError, match="3 numbers are no vectors of 2 dimensions"):
        ParentCall(1).take(Vectors(1, cut))


def test_a_tensor_of_another_size_breaks_the_protocol() -> None:
    inferred = inferred_to_wire(Inferred(outputs=(BITS,)))
    [tensor] = inferred.outputs  # type: ignore[attr-defined] # made of the class
    short = msgspec.structs.replace(tensor, data=b"\x01")
    lying = msgspec.structs.replace(inferred, outputs=(short,))
    with pytest.raises(
        FrameError, match=r"'x' has 1 bytes; INT8 of the shape \[2, 1\]"
    ):
        ParentCall(1).take(Tensors(1, lying))


async def test_a_count_is_an_answer() -> None:
    call = ParentCall(1)
    call.take(Counted(1, 0))
    call.end(None)
    assert await call.value() == 0


@pytest.mark.parametrize("vectors", [(), ((0.1, -1e300), (3.0, 0.0)), ((),)])
def test_embeddings_survive_but_empty_vectors(
    vectors: tuple[tuple[float, ...], ...],
) -> None:
    value = Embeddings(vectors=vectors, usage=Usage(input_uncached=5))
    back = embeddings_from_wire(embeddings_to_wire(value))
    assert back == (
        value if vectors != ((),) else Embeddings(vectors=(), usage=value.usage)
    )


def test_who_asks_stays_on_this_side() -> None:
    request = EmbedRequest(
        request_id="r",
        model="m",
        inputs=("a", (1, 2)),
        dimensions=3,
        extra={"x": b"1"},
        asker=Asker(key="k"),
    )
    back = embed_request_from_wire(embed_request_to_wire(request))
    assert back.asker is None
    assert back.inputs == request.inputs
    assert (back.dimensions, back.extra) == (3, {"x": b"1"})
    asked = attrs.evolve(tensors(BITS, outputs=("y",)), asker=Asker(key="k"))
    lean = attrs.evolve(asked, asker=None)
    assert infer_request_from_wire(infer_request_to_wire(asked)) == lean
