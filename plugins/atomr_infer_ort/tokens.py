"""A model's tokenizer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from atomr_infer.errors import EngineStartError, InvalidRequestError
from atomr_infer.runtimes.decoding.chat import special_token

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any


class ModelTokenizer:
    """``tokenizer.json``, without its own cutting and padding.

    Args:
        path: the file.
        vocabulary: tokens that the model knows; None: those of the tokenizer.

    Attributes:
        size: how many tokens there are.

    Raises:
        EngineStartError: it cannot be read.
    """

    def __init__(self, path: Path, *, vocabulary: int | None = None) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        # The library raises a bare Exception.
        except Exception as error:
            raise EngineStartError(
                f"the tokenizer {str(path)!r} cannot be read: {error}"
            ) from error
        # A text is refused when it is too long, and never cut in silence.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        own = int(self._tokenizer.get_vocab_size(with_added_tokens=True))
        self.size = own if vocabulary is None else min(own, vocabulary)
        self._is_spaced = _is_spaced(self._tokenizer)

    @property
    def text(self) -> str:
        """The tokenizer as its file has it."""
        return str(self._tokenizer.to_str())

    def same_as(self, other: ModelTokenizer) -> bool:
        """Whether two say the same tokens by the same numbers."""
        own = self._tokenizer.get_vocab(with_added_tokens=True)
        return own == other._tokenizer.get_vocab(with_added_tokens=True)

    def encode(
        self, text: str, *, with_special: bool, behind: str | None = None
    ) -> list[int]:
        """Return a text's tokens, or those of two.

        Args:
            text: the text.
            with_special: whether the tokens that begin and end a text are added.
            behind: a second text, which the model reads together with the first;
                None: there is none.

        Raises:
            InvalidRequestError: it is not Unicode, or holds a token that the
                tokenizer has and the model has not.
        """
        try:
            found = self._tokenizer.encode(
                text, behind, add_special_tokens=with_special
            )
        except (TypeError, UnicodeError) as error:
            raise InvalidRequestError(
                "the request holds text that is not Unicode"
            ) from error
        tokens = list(found.ids)
        # It would fail inside the engine, and end it for everybody.
        if max(tokens, default=0) >= self.size:
            raise InvalidRequestError(
                "the request holds a token that the model does not have"
            )
        return tokens

    def decode(self, tokens: list[int]) -> str:
        """Return the text of tokens, special ones left out."""
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))

    def name_of(self, token: int) -> str:
        """Return a token's text on its own, special tokens included."""
        spaced = self._spaced(token)
        if spaced is not None:
            return spaced
        return str(self._tokenizer.decode([token], skip_special_tokens=False))

    def bytes_of(self, token: int) -> bytes | None:
        """Return a token's bytes, which may be a part of a character.

        None: the tokenizer does not say them.
        """
        text = self.name_of(token)
        if "\ufffd" not in text:
            return text.encode()
        return _bytes_named(self._tokenizer.id_to_token(token) or "")

    def _spaced(self, token: int) -> str | None:
        """Return the text of a token that has a blank by its name; None: it has none.

        A decoder cuts the blank that a text begins with, and so that of each token
        that is decoded on its own.
        """
        name = self._tokenizer.id_to_token(token) if self._is_spaced else None
        return name.replace(_BLANK, " ") if name and _BLANK in name else None

    def end_tokens(
        self, settings: Mapping[str, Any], tokenizer_config: Mapping[str, Any]
    ) -> frozenset[int]:
        """Return the tokens that end an answer.

        Args:
            settings: ``generation_config.json`` over ``config.json``.
            tokenizer_config: ``tokenizer_config.json``.
        """
        said = settings.get("eos_token_id")
        numbers = said if isinstance(said, list) else [said]
        found = {number for number in numbers if isinstance(number, int)}
        text = special_token(tokenizer_config, "eos_token")
        number = None if text is None else self._tokenizer.token_to_id(text)
        return frozenset(found if number is None else found | {number})


def _is_spaced(tokenizer: Tokenizer) -> bool:
    """Whether names write a blank as SentencePiece does; byte-level ones do not."""
    decoder = tokenizer.decoder
    return decoder is not None and decoder.decode(["a", f"{_BLANK}b"]) == "a b"


def _bytes_named(name: str) -> bytes | None:
    r"""Return the bytes that a token's name in a vocabulary stands for.

    Source: byte-level BPE as GPT-2 wrote it, and SentencePiece's byte fallback.

    >>> _bytes_named("\u0120\u00f0\u0141"), _bytes_named("<0xF0>")
    (b' \xf0\x9f', b'\xf0')
    >>> _bytes_named("\u2581half")
    """
    if found := _FALLBACK.fullmatch(name):
        return bytes.fromhex(found[1])
    if name and all(letter in _BYTES for letter in name):
        return bytes(_BYTES[letter] for letter in name)
    return None


def _byte_alphabet() -> dict[str, int]:
    """Return the letter that byte-level BPE writes for each byte."""
    shown = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(0x100) if byte not in shown]
    letters = {chr(byte): byte for byte in shown}
    return letters | {chr(0x100 + at): byte for at, byte in enumerate(hidden)}


_BLANK = "\u2581"
_BYTES = _byte_alphabet()
_FALLBACK = re.compile(r"<0x([0-9A-F]{2})>")
