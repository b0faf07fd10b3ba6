"""What nodes say to each other arrives as it was said, and nonsense is refused."""

from __future__ import annotations

import enum
import types
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Union, get_args, get_origin, get_type_hints

import attrs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_infer.errors import ErrorRecord, InternalError, RateLimitedError
from atomr_infer.model.batch import ExecuteBatch, Message, RawChunk, Role, TokenChunk
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.embeddings import Embeddings, EmbedRequest
from atomr_infer.model.secret import EnvSecret, HeaderSecret
from atomr_infer.model.source import Source
from atomr_infer.model.tensors import (
    Datatype,
    Inferred,
    InferRequest,
    Signature,
    Tensor,
    TensorSpec,
)
from atomr_infer.model.usage import Usage
from atomr_infer.wire.nodes import frames
from atomr_infer.wire.nodes.frames import (
    VERSION,
    Admitted,
    Ask,
    Count,
    Credit,
    Ended,
    Failed,
    FrameError,
    Kind,
    Opening,
    Refused,
    answer_of,
    ask_of,
    credit_of,
    encoded,
    error_of,
    headers_for,
    record_of,
)
from atomr_infer.wire.nodes.pieces import PIECE_BYTES, Joiner, cut

_PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(max_size=8),
    bytes: st.binary(max_size=8),
    bool: st.booleans(),
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    Decimal: st.decimals(0, 10, places=6),
    type(None): st.none(),
}


def any_of(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of a type, as the canonical form has them."""
    if hint in _PLAIN:
        return _PLAIN[hint]
    if attrs.has(hint):
        hints = get_type_hints(hint)
        fields = {f.name: any_of(hints[f.name]) for f in attrs.fields(hint)}
        return st.builds(hint, **fields)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return st.sampled_from(list(hint))
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return st.one_of(*map(any_of, arguments))
    if origin is tuple:
        return st.lists(any_of(arguments[0]), max_size=2).map(tuple)
    assert origin is Mapping, hint
    return st.dictionaries(*map(any_of, arguments), max_size=2)


BATCH = ExecuteBatch(request_id="r", model="m", messages=(Message(Role.USER, "hi"),))
ASK = Ask(
    kind=Kind.GENERATE,
    deployment="m",
    replica=0,
    left_s=30.0,
    may_wait=True,
    request=BATCH,
)
ANSWERS = st.one_of(
    *map(
        any_of,
        (Admitted, Refused, TokenChunk, RawChunk, Ended, Failed, Embeddings, Count),
    )
)


@given(any_of(ExecuteBatch), st.sampled_from([Kind.GENERATE, Kind.COUNT]))
@settings(max_examples=60, deadline=None)
def test_a_request_arrives_as_it_was_sent(request: ExecuteBatch, kind: Kind) -> None:
    ask = attrs.evolve(ASK, kind=kind, request=request)
    assert ask_of(encoded(ask)) == ask


@given(any_of(EmbedRequest))
@settings(max_examples=30, deadline=None)
def test_texts_to_embed_arrive_as_they_were_sent(request: EmbedRequest) -> None:
    ask = attrs.evolve(ASK, kind=Kind.EMBED, request=request)
    assert ask_of(encoded(ask)) == ask


def test_tensors_arrive_as_they_were_sent_and_lies_do_not() -> None:
    tensor = Tensor("x", Datatype.INT16, (1, 2), b"\x01\x00\x02\x00")
    request = InferRequest(request_id="r", model="m", inputs=(tensor,), outputs=("y",))
    ask = attrs.evolve(ASK, kind=Kind.INFER, request=request)
    assert ask_of(encoded(ask)) == ask
    spec = TensorSpec("x", Datatype.INT16, (-1, 2))
    answer = Inferred(
        outputs=(tensor,), usage=Usage(), signature=Signature((spec,), (spec,))
    )
    assert answer_of(encoded(answer)) == answer
    with pytest.raises(FrameError, match="not a value"):
        ask_of(encoded(ask).replace(b"INT16", b"INT32"))


@given(ANSWERS)
@settings(max_examples=100, deadline=None)
def test_an_answer_arrives_as_it_was_given(answer: Any) -> None:
    assert answer_of(encoded(answer)) == answer


@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 255))
@settings(max_examples=100, deadline=None)
def test_garbage_is_refused_and_nothing_else_happens(
    noise: bytes, at: int, byte: int
) -> None:
    broken = bytearray(encoded(ASK))
    broken[at % len(broken)] = byte
    for data in (noise, bytes(broken), bytes(broken[: at % len(broken)])):
        for read in (ask_of, answer_of, credit_of):
            try:
                read(data)
            except FrameError:
                continue


def test_the_bytes_of_the_client_travel_as_they_came() -> None:
    body = b'{"model" : "m",\n "messages": []}'
    source = Source(Dialect.OPENAI_CHAT, body, "m", sole=True)
    ask = attrs.evolve(ASK, request=attrs.evolve(BATCH, source=source))
    arrived = ask_of(encoded(ask)).request
    assert isinstance(arrived, ExecuteBatch)
    assert arrived.source == source
    assert arrived.source.sole
    assert arrived.source.renamed("n") == b'{"model" : "n",\n "messages": []}'


@pytest.mark.parametrize("change", ["one more", "one less", "another tag"])
def test_a_value_of_another_version_is_refused(change: str) -> None:
    fields = msgspec.msgpack.decode(encoded(ASK))
    match change:
        case "one more":
            fields.append("new")
        case "one less":
            fields.pop()
        case _:
            fields[0] = "Beg"
    with pytest.raises(FrameError, match="not a value"):
        ask_of(msgspec.msgpack.encode(fields))


def test_a_request_of_the_wrong_kind_is_refused() -> None:
    for kind, request in (
        (Kind.EMBED, BATCH),
        (Kind.COUNT, EmbedRequest(request_id="r", model="m", inputs=("x",))),
        (Kind.INFER, BATCH),
    ):
        with pytest.raises(FrameError, match=f"{kind.value} with"):
            ask_of(encoded(attrs.evolve(ASK, kind=kind, request=request)))


@pytest.mark.parametrize("left_s", [-1.0, float("nan"), float("inf"), 1e9])
def test_a_request_has_some_time_left_and_not_for_ever(left_s: float) -> None:
    with pytest.raises(FrameError, match="s left"):
        ask_of(encoded(attrs.evolve(ASK, left_s=left_s)))


@pytest.mark.parametrize("size_bytes", [0, -1, frames.MAX_VALUE_BYTES + 1])
def test_a_credit_that_makes_no_sense_is_refused(size_bytes: int) -> None:
    with pytest.raises(FrameError, match=f"a credit of {size_bytes} bytes"):
        credit_of(encoded(Credit(size_bytes)))


def test_what_no_bytes_can_carry_is_told_before_anything_is_sent() -> None:
    seed = attrs.evolve(BATCH.sampling, seed=2**64)
    with pytest.raises(FrameError, match="Ask: can't serialize"):
        encoded(attrs.evolve(ASK, request=attrs.evolve(BATCH, sampling=seed)))
    with pytest.raises(FrameError, match="TokenChunk"):
        encoded(TokenChunk(text="\ud800"))


def test_a_value_has_a_greatest_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_VALUE_BYTES", 1_000)
    with pytest.raises(FrameError, match="nodes carry 1000 at most"):
        encoded(RawChunk(data=b"x" * 1_000))


def test_errors_keep_their_kind_and_one_of_another_version_is_internal() -> None:
    error = RateLimitedError("slow down", retry_after_s=2.0, status=429)
    again = error_of(record_of(error))
    assert type(again) is RateLimitedError
    assert record_of(again) == record_of(error)
    unknown = error_of(ErrorRecord("from_the_future", "no"))
    assert isinstance(unknown, InternalError)
    assert unknown.message == "from_the_future: no"


def test_the_version_is_that_of_all_fields() -> None:
    assert len(VERSION) == 16
    assert "left_s: <class 'float'>" in frames._CODEC.shape()
    assert "service_tier" not in frames._CODEC.shape()


def test_only_the_key_that_the_deployment_asks_its_clients_for_leaves_the_node() -> (
    None
):
    headers = {"anthropic-beta": "b", "x-key": "one", "x-other": "two"}
    keys = ("x-key", "x-other")
    own = Deployment(name="m", runtime="mock", credential=HeaderSecret("x-key"))
    assert headers_for(own, headers, keys) == {"anthropic-beta": "b", "x-key": "one"}
    ours = Deployment(name="m", runtime="mock", credential=EnvSecret("KEY"))
    assert headers_for(ours, headers, keys) == {"anthropic-beta": "b"}
    assert headers_for(ours, headers, ()) is headers


# --- pieces ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES]
)
def test_a_long_value_is_put_together_again(size: int) -> None:
    value = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    pieces = cut(value)
    assert len(pieces) == max(1, -(-size // PIECE_BYTES))
    joiner = Joiner()
    for message in pieces[:-1]:
        assert joiner.take(message) is None
        assert joiner.is_within
    assert joiner.take(pieces[-1]) == value
    assert not joiner.is_within
    assert joiner.take(b"\x00next") == b"next"


def test_a_value_that_never_ends_is_cut_off() -> None:
    joiner = Joiner(max_bytes=10)
    assert joiner.take(b"\x01" + b"x" * 10) is None
    with pytest.raises(FrameError, match="more than 10 bytes"):
        joiner.take(b"\x01x")


@pytest.mark.parametrize("message", [b"", b"\x02x", b"\x01"])
def test_what_is_no_piece_is_refused(message: bytes) -> None:
    with pytest.raises(FrameError, match="no piece"):
        Joiner().take(message)


def test_the_opening_of_a_stream_is_the_same_in_all_versions() -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(Opening("v", 3, b"ask"))) == [
        "Opening",
        "v",
        3,
        b"ask",
    ]


def test_usage_travels_to_the_last_decimal() -> None:
    usage = Usage(input_uncached=3, reported_usd=Decimal("0.000001"))
    assert answer_of(encoded(Ended(usage))) == Ended(usage)
