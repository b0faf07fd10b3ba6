"""The bridge's language: frames, their encoding, an incremental reader.

A frame is four bytes of length (big-endian, the length of what follows) and
one msgpack array: the frame's tag and its fields.  The conversation::

    parent                          child
      | <------------- Hello ---------|   versions are compared first
      |-- Open ---------------------->|   import the plugin, open its runner
      | <------------- Progress * ----|
      | <- Ready ---- or StartFailed -|
      |-- Execute(n, credit) -------->|
      | <--- Text(n) or Chunk(n) * ---|   never more than the credit allows
      |-- Credit(n) * --------------->|
      |-- Cancel(n) ----------------->|   when the reader left early
      | <------------- End(n) --------|   exactly once: n is out of the engine
      |-- Embed(n), Count(n), Infer(n) >|
      | <- Vectors, Counted, Tensors -|
      |-- Measure(n) ---------------->|   never cancelled: a late answer is ignored
      | <------------- Measured(n) ---|
      | <------------- End(n) --------|
      |-- Ping * -------------------->|
      | <------------- Pong * --------|   so its event loop runs; with its steps
      | <------------- Failed --------|   the runner can serve no more
      |-- Close --------------------->|   then the child exits

``End`` is the only end of a stream: of one that ran out, of one that failed
and of one that was cancelled by a ``Cancel``.  Those that an engine's own end takes
along have none: ``Failed``, or the end of the process, is theirs.  A question has one
answer, or an error in its ``End``, and is cancelled as a stream is.  A ``Cancel`` that
crosses an ``End`` names a stream that is gone and is ignored.

Pure.
"""

from __future__ import annotations

import struct
from typing import Generic, TypeVar

import msgspec

from atomr_infer.bridge.protocol.deployment_values import DeploymentWire
from atomr_infer.bridge.protocol.values import (
    BatchWire,
    CapabilitiesWire,
    ChunkWire,
    EmbeddingsWire,
    EmbedRequestWire,
    ErrorWire,
    FigureWire,
    InferredWire,
    InferRequestWire,
    ProgressWire,
)

PROTOCOL_VERSION = 9
"""Changes with every change of a frame; both sides must agree exactly."""

MAX_FRAME_BYTES = 32 * 1024 * 1024
"""Longest frame: room for a prompt of millions of tokens, and a bound on what a
child that sends garbage makes the parent allocate."""

_LENGTH = struct.Struct(">I")


class FrameError(ValueError):
    """Bytes that are no frame, or a value that no frame can carry."""


class _Frame(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """One message; its tag is its class's name."""


# --- parent to child --------------------------------------------------------


class Open(_Frame, frozen=True):
    """Import ``plugin_ref`` (``module:attribute``) and open its runner."""

    plugin_ref: str
    deployment: DeploymentWire
    credential: str | None


class Execute(_Frame, frozen=True):
    """Run a generation; send at most ``credit`` chunks until more is granted."""

    stream: int
    batch: BatchWire
    credit: int


class Embed(_Frame, frozen=True):
    """Turn texts into vectors."""

    stream: int
    request: EmbedRequestWire


class Count(_Frame, frozen=True):
    """Count the tokens of a request's prompt."""

    stream: int
    batch: BatchWire


class Infer(_Frame, frozen=True):
    """Run the model on tensors."""

    stream: int
    request: InferRequestWire


class Measure(_Frame, frozen=True):
    """Tell the engine's figures."""

    stream: int


class Credit(_Frame, frozen=True):
    """The reader has room for ``chunks`` more chunks."""

    stream: int
    chunks: int


class Cancel(_Frame, frozen=True):
    """The reader has left; stop the generation and answer ``End``."""

    stream: int


class Ping(_Frame, frozen=True):
    """Answer ``Pong``."""


class Close(_Frame, frozen=True):
    """Stop everything, close the runner, exit with status 0."""


# --- child to parent --------------------------------------------------------


class Hello(_Frame, frozen=True):
    """The first frame of a child."""

    protocol: int


class Starting(_Frame, frozen=True):
    """How far the runner's start has come."""

    progress: ProgressWire


class Ready(_Frame, frozen=True):
    """The runner is open."""

    capabilities: CapabilitiesWire


class StartFailed(_Frame, frozen=True):
    """The runner could not be opened; the child exits."""

    error: ErrorWire


class Chunk(_Frame, frozen=True):
    """A piece of the answer of ``stream``; costs one credit."""

    stream: int
    chunk: ChunkWire


class Text(_Frame, frozen=True):
    """A chunk that holds nothing but text, which nearly all do; costs one credit."""

    stream: int
    text: str
    index: int


class Vectors(_Frame, frozen=True):
    """The answer to ``Embed``."""

    stream: int
    embeddings: EmbeddingsWire


class Counted(_Frame, frozen=True):
    """The answer to ``Count``."""

    stream: int
    tokens: int


class Tensors(_Frame, frozen=True):
    """The answer to ``Infer``."""

    stream: int
    inferred: InferredWire


class Measured(_Frame, frozen=True):
    """The answer to ``Measure``."""

    stream: int
    figures: tuple[FigureWire, ...]


class End(_Frame, frozen=True):
    """``stream`` is out of the engine; ``error`` says why it failed, if it did."""

    stream: int
    error: ErrorWire | None


class Failed(_Frame, frozen=True):
    """The runner can serve no more."""

    error: ErrorWire


class Pong(_Frame, frozen=True):
    """The answer to ``Ping``; ``steps``: the engine's so far, None: it tells none."""

    steps: int | None = None


Told = Chunk | Text | Vectors | Counted | Tensors | Measured
"""What a child says of one stream or question before its ``End``."""

Question = Embed | Count | Infer | Measure
"""What has one answer."""

ParentFrame = Open | Execute | Question | Credit | Cancel | Ping | Close
ChildFrame = Hello | Starting | Ready | StartFailed | Told | End | Failed | Pong

_F = TypeVar("_F")


def encode(
    frame: ParentFrame | ChildFrame, *, max_bytes: int = MAX_FRAME_BYTES
) -> bytes:
    """Return the frame's bytes, length included.

    Raises:
        FrameError: it is longer than ``max_bytes``, or a value in it cannot be
            encoded: an integer over 64 bits, half a surrogate pair.
    """
    try:
        body = _ENCODER.encode(frame)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise FrameError(f"{type(frame).__name__}: {error}") from error
    if len(body) > max_bytes:
        raise FrameError(
            f"{type(frame).__name__} has {len(body)} bytes; "
            f"the bridge carries {max_bytes} at most"
        )
    return _LENGTH.pack(len(body)) + body


_ENCODER = msgspec.msgpack.Encoder()


class FrameReader(Generic[_F]):
    """Cuts a stream of bytes into frames.

    Make one with :func:`parent_reader` or :func:`child_reader`.  After a
    :class:`FrameError` the stream has lost its place: every later call raises
    that error again.
    """

    def __init__(
        self,
        decoder: msgspec.msgpack.Decoder[_F],
        *,
        max_bytes: int = MAX_FRAME_BYTES,
    ) -> None:
        self._decoder = decoder
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._broken: FrameError | None = None

    def receive(self, received: bytes | memoryview) -> list[_F]:
        """Return the frames that ``received`` completes, in order.

        Raises:
            FrameError: a frame is longer than the cap (found at its first four
                bytes, before it is buffered) or is not one of ours.
        """
        if self._broken is not None:
            raise self._broken
        self._buffer += received
        try:
            return self._cut()
        except FrameError as error:
            self._broken = error
            self._buffer.clear()
            raise

    def _cut(self) -> list[_F]:
        frames: list[_F] = []
        start = 0
        while (end := self._frame_end(start)) is not None:
            frames.append(self._decode(bytes(self._buffer[start + 4 : end])))
            start = end
        del self._buffer[:start]
        return frames

    def _frame_end(self, start: int) -> int | None:
        """Where the frame at ``start`` ends; None while it is not all there."""
        if len(self._buffer) < start + _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer, start)
        if length > self._max_bytes:
            raise FrameError(
                f"a frame of {length} bytes is announced; {self._max_bytes} is the most"
            )
        end = start + _LENGTH.size + int(length)
        return end if len(self._buffer) >= end else None

    def _decode(self, body: bytes) -> _F:
        try:
            return self._decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise FrameError(f"not a frame: {error}") from error


def child_reader(*, max_bytes: int = MAX_FRAME_BYTES) -> FrameReader[ChildFrame]:
    """Return a reader of what a child sends."""
    decoder: msgspec.msgpack.Decoder[ChildFrame]
    decoder = msgspec.msgpack.Decoder(ChildFrame)
    return FrameReader(decoder, max_bytes=max_bytes)


def parent_reader(*, max_bytes: int = MAX_FRAME_BYTES) -> FrameReader[ParentFrame]:
    """Return a reader of what the parent sends."""
    decoder: msgspec.msgpack.Decoder[ParentFrame]
    decoder = msgspec.msgpack.Decoder(ParentFrame)
    return FrameReader(decoder, max_bytes=max_bytes)
