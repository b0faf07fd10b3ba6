"""Frames survive the wire however it cuts them, and garbage does not."""

from __future__ import annotations

import struct

import attrs
import msgspec
import pytest

from atomr_infer.bridge.protocol.deployment_values import (
    deployment_from_wire,
    deployment_to_wire,
)
from atomr_infer.bridge.protocol.frames import (
    ChildFrame,
    Chunk,
    Credit,
    End,
    Execute,
    FrameError,
    Hello,
    Open,
    Ping,
    Pong,
    Ready,
    Starting,
    Text,
    child_reader,
    encode,
    parent_reader,
)
from atomr_infer.bridge.protocol.values import (
    batch_from_wire,
    batch_to_wire,
    capabilities_from_wire,
    capabilities_to_wire,
    chunk_from_wire,
    chunk_to_wire,
    error_from_wire,
    error_to_wire,
    progress_from_wire,
    progress_to_wire,
)
from atomr_infer.errors import ErrorRecord
from atomr_infer.model.batch import (
    ExecuteBatch,
    FinishReason,
    Message,
    RawPart,
    Role,
    Sampling,
    TextPart,
    TokenChunk,
    Usage,
)
from atomr_infer.model.capabilities import Capabilities, Feature, ThinkingStyle
from atomr_infer.model.deployment import (
    Deployment,
    Jitter,
    RetryPolicy,
    Serving,
    Timeouts,
)
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.failover import (
    BreakerPolicy,
    Fallback,
    FallbackReason,
    HedgePolicy,
    OnCapacity,
    OnCut,
)
from atomr_infer.model.secret import EnvSecret, FileSecret, Secret, SecretSource
from atomr_infer.model.tensors import Datatype, Signature, TensorSpec
from atomr_infer.runtimes.contract import Progress

BATCH = ExecuteBatch(
    request_id="r-1",
    model="m",
    messages=(
        Message(Role.SYSTEM, "be brief"),
        Message(
            Role.USER,
            (TextPart("what is"), RawPart("image_url", b'{"type":"image_url"}')),
            extra={"name": b'"ann"'},
        ),
        Message(Role.ASSISTANT, None, extra={"tool_calls": b"[]"}),
    ),
    sampling=Sampling(
        temperature=0.5,
        top_p=0.9,
        max_tokens=7,
        stop=("a", "b"),
        seed=-(2**63),
        presence_penalty=-1.0,
        frequency_penalty=1.0,
        n=2,
    ),
    stream=False,
    extra={"tools": b"[1]"},
)
CHUNK = TokenChunk(
    text="\x00é😀",
    index=1,
    finish_reason=FinishReason.LENGTH,
    usage=Usage(
        input_uncached=1, output_text=2, cache_read=3, reasoning=4, estimated=True
    ),
    extra={"tool_calls": b"[]"},
    choice_extra={"logprobs": b"null"},
    model="served",
)
FRAMES: list[ChildFrame] = [
    Hello(1),
    Starting(progress_to_wire(Progress("p", 1, 2, "tensors"))),
    Ready(capabilities_to_wire(Capabilities(features=frozenset(Feature)))),
    Chunk(3, chunk_to_wire(CHUNK)),
    Text(3, "a", 1),
    End(3, error_to_wire(ErrorRecord("engine", "m", "c", "p", 1.5, 503))),
    End(4, None),
    Pong(),
]


def deployment(credential: SecretSource | None) -> Deployment:
    return Deployment(
        name="d",
        runtime="r",
        model="package:x/y",
        interpreter="/venv/bin/python",
        serves=("a", "b/*"),
        credential=credential,
        options={"s": "é", "i": 1, "f": 0.5, "b": True, "l": [1, {"t": []}]},
        serving=Serving(
            replicas=2,
            max_concurrency=3,
            max_queue=0,
            priority_aging_s=2.5,
            on_capacity_exhausted=OnCapacity.FALLBACK,
        ),
        timeouts=Timeouts(load_s=1, idle_s=0.5),
        retry=RetryPolicy(max_attempts=1, jitter=Jitter.NONE, idempotent=False),
        fallbacks=[
            "e",
            Fallback(
                to="f", on=frozenset({FallbackReason.CONTENT_FILTER}), model="other"
            ),
        ],
        on_cut=OnCut.CONTINUE,
        breaker=BreakerPolicy(max_failures=1, failure_share=1, half_open_max_probes=2),
        hedge=HedgePolicy(after_s=1.5, max_fraction=0.25),
    )


def test_frames_arrive_whole_from_one_read() -> None:
    data = b"".join(map(encode, FRAMES))
    assert child_reader().receive(data) == FRAMES


def test_frames_arrive_whole_byte_by_byte() -> None:
    reader = child_reader()
    data = b"".join(map(encode, FRAMES))
    received = [
        frame for at in range(len(data)) for frame in reader.receive(data[at : at + 1])
    ]
    assert received == FRAMES


def test_trailing_bytes_wait_for_the_rest_of_their_frame() -> None:
    reader = child_reader()
    data = encode(Hello(1)) + encode(Hello(2))
    assert reader.receive(data[:-1]) == [Hello(1)]
    assert reader.receive(b"") == []
    assert reader.receive(data[-1:] + b"\x00") == [Hello(2)]


def test_deployment_round_trips_with_every_kind_of_credential() -> None:
    for credential in (None, EnvSecret("V"), FileSecret("/k"), Secret("sk-1")):
        frame = Open("m:a", deployment_to_wire(deployment(credential)), "sk-2")
        [read] = parent_reader().receive(encode(frame))
        assert read == frame
        assert isinstance(read, Open)
        assert deployment_from_wire(read.deployment) == deployment(credential)


def test_request_and_answer_round_trip() -> None:
    [read] = parent_reader().receive(encode(Execute(1, batch_to_wire(BATCH), 4)))
    assert isinstance(read, Execute)
    assert batch_from_wire(read.batch) == BATCH
    [read_chunk] = child_reader().receive(encode(Chunk(1, chunk_to_wire(CHUNK))))
    assert isinstance(read_chunk, Chunk)
    assert chunk_from_wire(read_chunk.chunk) == CHUNK
    assert chunk_from_wire(chunk_to_wire(TokenChunk())) == TokenChunk()


def test_all_that_a_runner_can_do_crosses() -> None:
    spec = TensorSpec("x", Datatype.FP32, (-1, 2))
    capabilities = Capabilities(
        features=frozenset({Feature.TOOLS}),
        sampling=frozenset({"n"}),
        max_concurrency=3,
        context_tokens=8,
        max_output_tokens=4,
        thinking=ThinkingStyle.BUDGET,
        passes=frozenset({Dialect.ANTHROPIC}),
        extra_of=frozenset({Dialect.OPENAI_CHAT}),
        url_prefixes=("gs://",),
        max_n=2,
        selectors=frozenset({"models"}),
        members=frozenset({"min_p"}),
        signature=Signature((spec,), (spec,)),
    )
    default = attrs.asdict(Capabilities(), recurse=False)
    told = attrs.asdict(capabilities, recurse=False)
    assert [name for name in told if told[name] == default[name]] == []
    assert capabilities_from_wire(capabilities_to_wire(capabilities)) == capabilities


def test_small_values_round_trip() -> None:
    progress = Progress("p", 1, None, "tensors")
    assert progress_from_wire(progress_to_wire(progress)) == progress
    record = ErrorRecord("engine", "m", retry_after_s=1.5)
    assert error_from_wire(error_to_wire(record)) == record


def test_announced_oversize_is_refused_before_it_is_buffered() -> None:
    reader = child_reader(max_bytes=100)
    with pytest.raises(FrameError, match=r"a frame of 101 bytes .* 100 is the most"):
        reader.receive(struct.pack(">I", 101))
    with pytest.raises(FrameError, match="101"):
        reader.receive(encode(Pong()))


def test_frame_of_exactly_the_cap_passes() -> None:
    frame = Credit(1, 2)
    size = len(encode(frame)) - 4
    assert encode(frame, max_bytes=size) == encode(frame)
    assert parent_reader(max_bytes=size).receive(encode(frame)) == [frame]
    with pytest.raises(FrameError, match=f"Credit has {size} bytes"):
        encode(frame, max_bytes=size - 1)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xff\xff",
        b"not msgpack at all",
        msgspec.msgpack.encode(["NoSuchFrame"]),
        msgspec.msgpack.encode(["Hello"]),
        msgspec.msgpack.encode(["Hello", "one"]),
        b"\x92\xa5Hello\xa1\xff",  # text that is not UTF-8
    ],
)
def test_garbage_is_a_frame_error(body: bytes) -> None:
    with pytest.raises(FrameError, match="not a frame"):
        child_reader().receive(struct.pack(">I", len(body)) + body)


def test_the_other_direction_s_frames_are_refused() -> None:
    with pytest.raises(FrameError, match="not a frame"):
        child_reader().receive(encode(Ping()))


@pytest.mark.parametrize(
    "batch",
    [
        ExecuteBatch(
            request_id="r", model="m", messages=(), sampling=Sampling(seed=2**64)
        ),
        ExecuteBatch(
            request_id="r", model="m", messages=(Message(Role.USER, "\ud800"),)
        ),
    ],
)
def test_what_no_frame_can_carry_is_a_frame_error(batch: ExecuteBatch) -> None:
    with pytest.raises(FrameError, match="Execute: "):
        encode(Execute(1, batch_to_wire(batch), 1))
