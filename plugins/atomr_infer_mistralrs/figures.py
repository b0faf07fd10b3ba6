"""What is counted of mistral.rs, as figures.

It has no figures of its own that a program may ask for, so what passes through the
runner is counted: a token when it is told, and a prompt when its answer has ended,
for only then does the engine say how long it was and how much of it it knew.  What
it makes for somebody who has left is not seen.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.model import figures as named

if TYPE_CHECKING:
    from atomr_infer.model.batch import TokenChunk
    from atomr_infer.model.figures import Figure


class Tally:
    """What all answers of an engine come to.

    >>> from atomr_infer.model.batch import TokenChunk, Usage
    >>> tally = Tally()
    >>> first = tally.answer()
    >>> first.take(TokenChunk(text="a"))
    >>> first.take(TokenChunk(usage=Usage(input_uncached=5, output_text=2)))
    >>> [(f.name, f.value) for f in tally.figures(running=1, waiting=0)][2:4]
    [('prompt_tokens', 5.0), ('output_tokens', 2.0)]
    """

    def __init__(self) -> None:
        self._read = self._found = self._made = 0

    def answer(self) -> Counting:
        """Begin to count an answer."""
        return Counting(self)

    def add(self, *, read: int = 0, found: int = 0, made: int = 0) -> None:
        """Count tokens of a prompt, those of them that were known, and of an answer."""
        self._read += read
        self._found += found
        self._made += made

    def figures(self, *, running: int, waiting: int) -> tuple[Figure, ...]:
        """Return how it stands.

        Args:
            running: requests that the engine has.
            waiting: those that it has not been given yet.
        """
        return (
            named.running(running),
            named.waiting(waiting),
            named.read_tokens(self._read),
            named.made_tokens(self._made),
            named.prefix_asked(self._read),
            named.prefix_hit(self._found),
        )


class Counting:
    """One answer on its way into a tally."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._told = 0

    def take(self, chunk: TokenChunk) -> None:
        """Count a piece: the engine tells each token by itself, and at the end all."""
        made = int(chunk.has_content)
        usage = chunk.usage
        if usage is None:
            self._told += made
            self._tally.add(made=made)
            return
        # Some tokens have no text of their own, such as the halves of a letter.
        self._tally.add(
            read=usage.prompt_tokens,
            found=usage.cache_read,
            made=max(0, usage.output_tokens - self._told),
        )
