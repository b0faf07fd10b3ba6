"""Which replica has a conversation, or the beginning of a prompt, in its memory.

A *rendezvous* gives a key to the candidate with the highest hash of both: all nodes
come to the same one without a word, and when one goes only its own keys move.

What a replica has read is remembered as hashes of the prompt's blocks, each of which
stands for all before it, too.  So the longest known beginning is found block by block,
and nothing of any prompt is kept.

Pure.

Source: Thaler and Ravishankar, "Using name-based mappings to increase hit rates".
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b
from typing import TYPE_CHECKING

from atomr_infer.model.parts import (
    AudioPart,
    FileId,
    FilePart,
    ImagePart,
    Inline,
    RawPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.parts import MediaSource, Part

BLOCK_BYTES = 1024
"""One block of a prompt: some 256 tokens."""

MAX_BLOCKS = 128
"""A prompt's blocks that are looked at: two that agree so far agree."""

MAX_KNOWN = 65_536
"""Blocks that are remembered for one deployment, at some 100 bytes each."""

_MAX_OWNERS = 4
_HASH_BYTES = 8


def rendezvous(key: bytes, labels: Iterable[str]) -> list[str]:
    """Return the candidates in the order in which a key prefers them.

    >>> rendezvous(b"a", ["x/0", "y/0"]) == rendezvous(b"a", ["y/0", "x/0"])
    True
    """

    def rank(label: str) -> bytes:
        return blake2b(label.encode(), key=key[:64], digest_size=_HASH_BYTES).digest()

    return sorted(labels, key=rank, reverse=True)


def session_of(batch: ExecuteBatch) -> bytes | None:
    """Return what names a request's conversation; None: nothing does.

    What the client says in a header comes first, then the cache key of OpenAI's
    dialect, then the user.
    """
    for said in (batch.session, batch.extra.get("prompt_cache_key"), batch.user):
        if said:
            data = said.encode() if isinstance(said, str) else said
            return blake2b(data, digest_size=_HASH_BYTES).digest()
    return None


def prefix_blocks(batch: ExecuteBatch) -> tuple[bytes, ...]:
    """Return the hashes of a prompt's blocks; each stands for all before it, too.

    What is left behind the last whole block is not looked at.
    """
    state = blake2b(digest_size=_HASH_BYTES)
    found: list[bytes] = []
    rest = b""
    for piece in _pieces(batch):
        rest += piece
        whole = len(rest) - len(rest) % BLOCK_BYTES
        for start in range(0, whole, BLOCK_BYTES):
            state.update(rest[start : start + BLOCK_BYTES])
            found.append(state.digest())
            if len(found) == MAX_BLOCKS:
                return tuple(found)
        rest = rest[whole:]
    return tuple(found)


class ReadPrefixes:
    """Which replica has read which beginnings; the oldest are forgotten."""

    def __init__(self, *, most: int = MAX_KNOWN) -> None:
        self._most = most
        self._owners: OrderedDict[bytes, tuple[str, ...]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._owners)

    def longest(self, blocks: tuple[bytes, ...]) -> tuple[int, tuple[str, ...]]:
        """Return how many blocks somebody has read, and who, newest first."""
        for count in range(len(blocks), 0, -1):
            owners = self._owners.get(blocks[count - 1])
            if owners is not None:
                return count, owners
        return 0, ()

    def note(self, blocks: tuple[bytes, ...], label: str) -> None:
        """Remember that a replica reads a prompt."""
        for block in blocks:
            others = (o for o in self._owners.pop(block, ()) if o != label)
            self._owners[block] = (label, *others)[:_MAX_OWNERS]
        while len(self._owners) > self._most:
            self._owners.popitem(last=False)


def _pieces(batch: ExecuteBatch) -> Iterator[bytes]:
    for tool in batch.tools:
        yield repr(tool).encode()
    for message in batch.messages:
        yield message.role.value.encode()
        for part in message.content:
            yield from _part(part)


def _part(part: Part) -> Iterator[bytes]:
    match part:
        case TextPart() | RefusalPart() | ReasoningPart():
            yield part.text.encode()
        case ToolCallPart():
            yield part.name.encode() + part.arguments.encode()
        case ToolResultPart():
            for each in part.content:
                yield from _part(each)
        case ImagePart() | AudioPart() | FilePart():
            yield _media(part.source)
        case RawPart():
            yield part.json


def _media(source: MediaSource) -> bytes:
    match source:
        case Inline():
            return blake2b(source.base64.encode()).digest()
        case FileId():
            return source.id.encode()
        case _:
            return source.url.encode()
