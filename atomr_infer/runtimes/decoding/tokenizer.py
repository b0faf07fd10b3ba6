"""What is asked of a model's tokenizer, whoever wrote it.

Pure.
"""

from __future__ import annotations

from typing import Protocol


class Tokenizer(Protocol):
    """A text's tokens, and the text of tokens."""

    def encode(self, text: str, *, with_special: bool) -> list[int]:
        """Return a text's tokens; blocks for long ones.

        Args:
            text: the text.
            with_special: whether the tokens that begin and end a text are added.

        Raises:
            InvalidRequestError: the model cannot read it.
        """
        ...

    def decode(self, tokens: list[int]) -> str:
        """Return the text of tokens, special ones left out."""
        ...

    def name_of(self, token: int) -> str:
        """Return a token's text on its own, special tokens included."""
        ...

    def bytes_of(self, token: int) -> bytes | None:
        """Return a token's bytes, which may be a part of a character.

        None: it cannot be said.
        """
        ...
