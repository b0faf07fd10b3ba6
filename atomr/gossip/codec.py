"""Frames as bytes and back, for all machines: whatever is no frame is one error.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F")


class Codec(Generic[F]):
    """Encodes and decodes the frames of one machine."""

    def __init__(
        self,
        frames: Any,  # noqa: ANN401 - a type, or a union of several
        *,
        malformed: Callable[[str], Exception] = msgspec.DecodeError,
        order: Literal["sorted"] | None = None,
    ) -> None:
        """Know their types.

        Args:
            frames: a type, or a union of several.
            malformed: makes the error of what is none, of a text that says why.
            order: of the keys of maps, where equal frames need equal bytes.
        """
        self._encode = msgspec.msgpack.Encoder(order=order).encode
        self._decode = msgspec.msgpack.Decoder(frames).decode
        self._malformed = malformed

    def encode(self, frame: F) -> bytes:
        """Return the bytes of a frame."""
        return self._encode(frame)

    def decode(self, content: bytes) -> F:
        """Return the frame of these bytes.

        Raises:
            Exception: they are none, as text that is no text, or nested too deep;
                see ``malformed``.
        """
        try:
            return cast("F", self._decode(content))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise self._malformed(f"decode({len(content)} bytes): {error}") from error
