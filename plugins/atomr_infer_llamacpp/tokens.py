"""The tokenizer that a GGUF holds."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import llama_cpp

from atomr_infer.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr_infer_llamacpp.model import LlamaModel

_ROOM_BYTES = 256
"""Most pieces of text are shorter; the library says how long a longer one is."""

# The C functions take them by place.
_YES, _NO = True, False


class LlamaTokenizer:
    """A :class:`~atomr_infer.runtimes.decoding.tokenizer.Tokenizer` of llama.cpp's."""

    def __init__(self, model: LlamaModel) -> None:
        self._vocabulary: Any = model.vocabulary
        self.size = model.size

    def encode(
        self, text: str, *, with_special: bool, behind: str | None = None
    ) -> list[int]:
        """Return a text's tokens, those of its markers too.

        Raises:
            InvalidRequestError: it is not Unicode.
        """
        # It is for models that rank, and they are refused when they start.
        assert behind is None, "two texts are not read together"
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequestError(
                "the request holds text that is not Unicode"
            ) from error
        room = len(data) + 2
        tokens = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(
            self._vocabulary, data, len(data), tokens, room, with_special, _YES
        )
        # No token is shorter than a byte, so there is room for all of them.
        assert count >= 0, count
        return list(tokens[:count])

    def decode(self, tokens: list[int]) -> str:
        """Return the text of tokens, special ones left out."""
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        data = _written(
            lambda buffer, room: llama_cpp.llama_detokenize(
                self._vocabulary, array, len(tokens), buffer, room, _NO, _NO
            )
        )
        return data.decode(errors="replace")

    def name_of(self, token: int) -> str:
        """Return a token's text on its own, special tokens included."""
        return self.bytes_of(token).decode(errors="replace")

    def bytes_of(self, token: int) -> bytes:
        """Return a token's bytes, which may be a part of a character."""
        return _written(
            lambda buffer, room: llama_cpp.llama_token_to_piece(
                self._vocabulary, token, buffer, room, 0, _YES
            )
        )

    def end_tokens(self) -> frozenset[int]:
        """Return the tokens that end an answer."""
        return frozenset(
            token
            for token in range(self.size)
            if llama_cpp.llama_vocab_is_eog(self._vocabulary, token)
        )

    def special_tokens(self) -> dict[str, str]:
        """Return those that a chat template may name."""
        found = {
            "bos_token": llama_cpp.llama_vocab_bos(self._vocabulary),
            "eos_token": llama_cpp.llama_vocab_eos(self._vocabulary),
        }
        return {
            name: self.name_of(token) for name, token in found.items() if token >= 0
        }


def _written(write: Callable[[Any, int], int]) -> bytes:
    """Return what is written into a buffer that is large enough."""
    buffer = ctypes.create_string_buffer(_ROOM_BYTES)
    count = write(buffer, _ROOM_BYTES)
    if count < 0:
        buffer = ctypes.create_string_buffer(-count)
        count = write(buffer, -count)
    return buffer.raw[:count]
