"""The language in which one node asks another one for a request's answer.

Each request has a stream of its own.  The conversation::

    asking node                      serving node
      | -- Opening, more pieces ------->|   versions are compared first
      | <-- Admitted, or Refused -------|   it has its permit, or will not run
      | <-- Staged * -------------------|   what it asks of others, so far
      | <-- TokenChunk, RawChunk * -----|   never more than the credit allows
      | -- Credit * ------------------->|   as the client takes them
      | <-- an answer, or Failed -------|   exactly once: it is over

An asking node that has left resets the stream, which ends the work over there.

A value is a msgpack array: its tag, and its fields.  What has another number of
fields, or a tag that is not known, is refused; so is a node of another ``VERSION``,
before it is asked anything.  A value that is longer than a message of a link is cut
into pieces (:mod:`atomr_infer.wire.nodes.pieces`).

No key of ours is in any of these; a key of the client's is where its deployment says
that its clients bring their own (:func:`headers_for`).

Pure.
"""

from __future__ import annotations

import hashlib
from enum import Enum
from typing import TYPE_CHECKING, Any, Union

import attrs
import msgspec

from atomr_infer.errors import ErrorRecord, InferenceError, decode, encode
from atomr_infer.model.batch import ExecuteBatch, RawChunk, TokenChunk, Usage
from atomr_infer.model.cost import Cost
from atomr_infer.model.embeddings import Embeddings, EmbedRequest
from atomr_infer.model.secret import HeaderSecret
from atomr_infer.model.tensors import Inferred, InferRequest
from atomr_infer.wire.codec import Codec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from atomr_infer.model.deployment import Deployment

MAX_VALUE_BYTES = 64 * 1024 * 1024
"""Longest request or answer: room for a body with pictures and its conversation."""


LONGEST_S = 86_400.0
"""What a request may have left that has no bound of its own: a day."""

DEEPEST = 64
"""More requests are inside each other nowhere, whatever a node says."""


class FrameError(ValueError):
    """Bytes that are no value of ours, or a value that no bytes can carry."""


class Kind(Enum):
    """What is wanted of a replica."""

    GENERATE = "generate"
    EMBED = "embed"
    COUNT = "count"
    INFER = "infer"


class Opening(
    msgspec.Struct, frozen=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """The first message of a stream; it alone is the same in all versions.

    Attributes:
        version: the asking node's ``VERSION``.
        size_bytes: length of the :class:`Ask` that comes with it and behind it.
        piece: its first bytes.
    """

    version: str
    size_bytes: int
    piece: bytes


@attrs.frozen(kw_only=True)
class Ask:
    """A request for one replica.

    Attributes:
        kind: what is wanted.
        deployment: whose replica.
        replica: its number.
        left_s: seconds until nobody waits for the answer any more.
        may_wait: whether its queue may be waited in.
        continues: True when the request ends with the beginning of its answer.
        depth: how many requests it is inside of.
        request: the request, for the model as the runtime knows it.
    """

    kind: Kind
    deployment: str
    replica: int
    left_s: float
    may_wait: bool
    continues: bool = False
    depth: int = 0
    request: ExecuteBatch | EmbedRequest | InferRequest = attrs.field(repr=False)


@attrs.frozen
class Admitted:
    """The request has its permit, and is about to run.

    Attributes:
        ignored: members of it that have no effect on the model.
        composed: whether it is answered by asking others, who are paid.
    """

    ignored: tuple[str, ...] = ()
    composed: bool = False


@attrs.frozen(kw_only=True)
class SpentTold:
    """What an attempt inside the request used.

    Attributes:
        deployment: who is paid.
        model: what its runtime was asked for.
        usage: the tokens.
    """

    deployment: str
    model: str
    usage: Usage


@attrs.frozen(kw_only=True)
class StageTold:
    """A request inside the request.

    Attributes:
        depth: how many of those that are told it is inside of.
        model: the name that it asks for.
        deployment: who answered; "" until it has ended.
        runtime: that one's.
        outcome: how it ended; "" until it has.
        verdict: what became of its answer.
        duration_s: from its beginning to its end.
        spent: what it used itself.
        cost: what that and those inside it cost; None: nobody knows, or not yet.
    """

    depth: int
    model: str
    deployment: str
    runtime: str
    outcome: str
    verdict: str
    duration_s: float
    spent: tuple[SpentTold, ...]
    cost: Cost | None


@attrs.frozen
class Staged:
    """All requests inside the request, as they stand; of two the last one is true.

    Attributes:
        stages: each before those inside it, in the order in which they began.
    """

    stages: tuple[StageTold, ...]


@attrs.frozen
class Refused:
    """The request did not run, and will not.

    Attributes:
        error: why.
    """

    error: ErrorRecord


@attrs.frozen
class Failed:
    """The request ran, and failed.

    Attributes:
        error: why.
        counted: what its upstream had told by its end; None: nothing.
    """

    error: ErrorRecord
    counted: Usage | None = None


@attrs.frozen
class Ended:
    """The stream of chunks is whole.

    Attributes:
        counted: as in :class:`Failed`.
    """

    counted: Usage | None = None


@attrs.frozen
class Count:
    """How many tokens a prompt has."""

    tokens: int


@attrs.frozen
class Credit:
    """There is room for so many more bytes."""

    size_bytes: int


Answer = (
    Admitted
    | Staged
    | Refused
    | TokenChunk
    | RawChunk
    | Ended
    | Failed
    | Embeddings
    | Inferred
    | Count
)
"""What a serving node says."""

_CODEC = Codec()


def _decoder(*classes: type) -> msgspec.msgpack.Decoder[Any]:
    structs = tuple(map(_CODEC.struct, classes))
    return msgspec.msgpack.Decoder(Union[structs])  # noqa: UP007 - made at run time


_ANSWERS = _decoder(
    Admitted,
    Staged,
    Refused,
    TokenChunk,
    RawChunk,
    Ended,
    Failed,
    Embeddings,
    Inferred,
    Count,
)
_ASKS = _decoder(Ask)
_CREDITS = _decoder(Credit)
_ENCODE = msgspec.msgpack.Encoder().encode

VERSION = hashlib.sha256(_CODEC.shape().encode()).hexdigest()[:16]
"""Of all fields of all values here: another one is another language."""


def encoded(value: Ask | Credit | Answer) -> bytes:
    """Return a value's bytes.

    Raises:
        FrameError: it is longer than ``MAX_VALUE_BYTES``, or something in it cannot
            be encoded: an integer over 64 bits, half a surrogate pair.
    """
    try:
        data = _ENCODE(_CODEC.to_wire(value))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise FrameError(f"{type(value).__name__}: {error}") from error
    if len(data) > MAX_VALUE_BYTES:
        raise FrameError(
            f"{type(value).__name__} has {len(data)} bytes; "
            f"nodes carry {MAX_VALUE_BYTES} at most"
        )
    return data


_ASKED: Mapping[Kind, type] = {Kind.EMBED: EmbedRequest, Kind.INFER: InferRequest}


def ask_of(data: bytes) -> Ask:
    """Return what is asked.

    Raises:
        FrameError: it is no :class:`Ask`.
    """
    ask: Ask = _decoded(_ASKS, data)
    if type(ask.request) is not _ASKED.get(ask.kind, ExecuteBatch):
        raise FrameError(f"{ask.kind.value} with {type(ask.request).__name__}")
    if not 0.0 <= ask.left_s <= LONGEST_S:
        raise FrameError(f"{ask.left_s} s left")
    if not 0 <= ask.depth <= DEEPEST:
        raise FrameError(f"{ask.depth} requests around it")
    return ask


def answer_of(data: bytes) -> Answer:
    """Return what a serving node says.

    Raises:
        FrameError: it is none of it.
    """
    answer: Answer = _decoded(_ANSWERS, data)
    if isinstance(answer, Staged):
        _check_nested(answer)
    return answer


def _check_nested(staged: Staged) -> None:
    """Refuse stages that nobody can have made.

    Raises:
        FrameError: one is inside of none, or took or cost less than nothing.
    """
    most = 0
    for stage in staged.stages:
        if not 0 <= stage.depth <= most:
            raise FrameError(f"a stage at the depth {stage.depth}, not {most}")
        if not stage.duration_s >= 0.0:
            raise FrameError(f"a stage of {stage.duration_s} s")
        if stage.cost is not None and min(stage.cost.parts.values(), default=0) < 0:
            raise FrameError(f"a stage that cost {stage.cost.usd} dollars")
        most = min(stage.depth + 1, DEEPEST)


def credit_of(data: bytes) -> Credit:
    """Return for how much more there is room.

    Raises:
        FrameError: it is no :class:`Credit`, or not a positive one.
    """
    credit: Credit = _decoded(_CREDITS, data)
    if not 0 < credit.size_bytes <= MAX_VALUE_BYTES:
        raise FrameError(f"a credit of {credit.size_bytes} bytes")
    return credit


def _decoded(decoder: msgspec.msgpack.Decoder[Any], data: bytes) -> Any:  # noqa: ANN401
    try:
        return _CODEC.from_wire(decoder.decode(data))
    # A value's own validators raise ValueError, as msgspec's errors are, too.
    except (ValueError, TypeError, RecursionError) as error:
        raise FrameError(f"not a value: {error}") from error


def record_of(error: InferenceError) -> ErrorRecord:
    """Return an error's record; :func:`error_of` is the way back."""
    return encode(error)


def error_of(record: ErrorRecord) -> InferenceError:
    """Return the error of a record; one of a kind that is not known is internal."""
    return decode(record)


def headers_for(
    deployment: Deployment, headers: Mapping[str, str], keys: Iterable[str]
) -> Mapping[str, str]:
    """Return the client's headers that may leave this node with a request.

    Args:
        deployment: who is asked.
        headers: the client's, by lower-case name.
        keys: those in which clients send a key of their own, to any deployment.
    """
    secret = deployment.credential
    own = secret.header if isinstance(secret, HeaderSecret) else None
    hidden = set(keys) - {own}
    if not hidden & headers.keys():
        return headers
    return {name: value for name, value in headers.items() if name not in hidden}
