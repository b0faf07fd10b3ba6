"""The nouns of inference as they cross the bridge, and the way there and back.

Requests and chunks have wire forms derived from their classes
(:mod:`atomr_infer.wire.codec`); the others are written out here: frozen
structs that are encoded as arrays.  ``x_from_wire(x_to_wire(value)) == value``
holds for every value, but that a request leaves the client's own bytes, its
headers and who it is behind: a runner in a child has no use for them.  A deployment
has a module of its own (:mod:`atomr_infer.bridge.protocol.deployment_values`).

Pure.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, TypeVar, cast

import attrs
import msgspec

from atomr_infer.errors import ErrorRecord
from atomr_infer.model.batch import ExecuteBatch, TokenChunk
from atomr_infer.model.capabilities import Capabilities, Feature, ThinkingStyle
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.embeddings import Embeddings, EmbedRequest
from atomr_infer.model.figures import Figure, check_figures
from atomr_infer.model.tensors import Inferred, InferRequest, Signature
from atomr_infer.model.usage import Usage
from atomr_infer.runtimes.contract import Progress
from atomr_infer.wire.codec import Codec

_T = TypeVar("_T")

_CODEC = Codec()

LONGEST_TOLD = 64 * 1024
"""More than anybody reads of one error, in characters; the rest of it is left out."""

_INT64 = 2**63


class Wire(msgspec.Struct, frozen=True, array_like=True):
    """A value on the wire: an array of its fields."""


if TYPE_CHECKING:
    from collections.abc import Iterable

    class BatchWire(Wire, frozen=True):
        """:class:`ExecuteBatch`."""

    class ChunkWire(Wire, frozen=True):
        """:class:`TokenChunk`."""

    class EmbedRequestWire(Wire, frozen=True):
        """:class:`EmbedRequest`."""

    class UsageWire(Wire, frozen=True):
        """:class:`Usage`."""

    class InferRequestWire(Wire, frozen=True):
        """:class:`InferRequest`."""

    class InferredWire(Wire, frozen=True):
        """:class:`Inferred`."""

    class SignatureWire(Wire, frozen=True):
        """:class:`Signature`."""

    class FigureWire(Wire, frozen=True):
        """:class:`Figure`."""

else:
    BatchWire = _CODEC.struct(ExecuteBatch)
    ChunkWire = _CODEC.struct(TokenChunk)
    EmbedRequestWire = _CODEC.struct(EmbedRequest)
    UsageWire = _CODEC.struct(Usage)
    InferRequestWire = _CODEC.struct(InferRequest)
    InferredWire = _CODEC.struct(Inferred)
    SignatureWire = _CODEC.struct(Signature)
    FigureWire = _CODEC.struct(Figure)


class EmbeddingsWire(Wire, frozen=True):
    """:class:`Embeddings`; ``packed`` is the vectors one after the other."""

    packed: bytes
    dimensions: int
    usage: UsageWire
    model: str | None
    labels: tuple[str, ...] = ()


class CapabilitiesWire(Wire, frozen=True):
    """:class:`Capabilities`; the sets are sorted, so that equal is equal bytes."""

    features: tuple[Feature, ...]
    sampling: tuple[str, ...]
    max_concurrency: int
    context_tokens: int | None
    max_output_tokens: int | None
    thinking: ThinkingStyle
    passes: tuple[Dialect, ...]
    extra_of: tuple[Dialect, ...]
    url_prefixes: tuple[str, ...]
    max_n: int | None
    selectors: tuple[str, ...]
    members: tuple[str, ...]
    signature: SignatureWire | None = None


class ProgressWire(Wire, frozen=True):
    """:class:`Progress`."""

    phase: str
    done: int | None
    total: int | None
    unit: str


class ErrorWire(Wire, frozen=True):
    """:class:`ErrorRecord`."""

    kind: str
    message: str
    code: str | None
    param: str | None
    retry_after_s: float | None
    status: int | None
    downgrade_to: str | None = None


def same_fields(source: object, target: type[_T]) -> _T:
    """Copy a flat value between its two forms, whose field names are equal."""
    names = (
        target.__struct_fields__
        if issubclass(target, msgspec.Struct)
        else tuple(field.name for field in attrs.fields(target))  # type: ignore[arg-type] # attrs.fields wants a type bound to attrs, which object cannot say
    )
    return target(**{name: getattr(source, name) for name in names})


# --- request and answer -------------------------------------------------------


def batch_to_wire(batch: ExecuteBatch) -> BatchWire:
    """Return the wire form of a request."""
    lean = attrs.evolve(batch, source=None, client_headers={}, asker=None)
    return cast("BatchWire", _CODEC.to_wire(lean))


def batch_from_wire(wire: BatchWire) -> ExecuteBatch:
    """Return the request."""
    return cast("ExecuteBatch", _CODEC.from_wire(wire))


def chunk_to_wire(chunk: TokenChunk) -> ChunkWire:
    """Return the wire form of a piece of an answer."""
    return cast("ChunkWire", _CODEC.to_wire(chunk))


def is_bare_text(chunk: TokenChunk) -> bool:
    """Whether a piece of an answer holds nothing but text.

    >>> is_bare_text(TokenChunk(text="a", index=1)), is_bare_text(TokenChunk(model="m"))
    (True, False)
    """
    return all(getattr(chunk, name) == default for name, default in _BESIDE_TEXT)


_BARE = TokenChunk()
_BESIDE_TEXT = tuple(
    (field.name, getattr(_BARE, field.name))
    for field in attrs.fields(TokenChunk)
    if field.name not in {"text", "index"}
)


def chunk_from_wire(wire: ChunkWire) -> TokenChunk:
    """Return the piece of an answer."""
    return cast("TokenChunk", _CODEC.from_wire(wire))


def embed_request_to_wire(request: EmbedRequest) -> EmbedRequestWire:
    """Return the wire form of texts to embed."""
    lean = attrs.evolve(request, asker=None)
    return cast("EmbedRequestWire", _CODEC.to_wire(lean))


def embed_request_from_wire(wire: EmbedRequestWire) -> EmbedRequest:
    """Return the texts to embed."""
    return cast("EmbedRequest", _CODEC.from_wire(wire))


def embeddings_to_wire(embeddings: Embeddings) -> EmbeddingsWire:
    """Return the wire form of vectors.

    Raises:
        ValueError: they are not of one length.
    """
    vectors = embeddings.vectors
    dimensions = len(vectors[0]) if vectors else 0
    packed = array("d")
    for vector in vectors:
        if len(vector) != dimensions:
            raise ValueError(f"vectors of {dimensions} and {len(vector)} dimensions")
        packed.extend(vector)
    return EmbeddingsWire(
        packed=packed.tobytes(),
        dimensions=dimensions,
        usage=cast("UsageWire", _CODEC.to_wire(embeddings.usage)),
        model=embeddings.model,
        labels=embeddings.labels,
    )


def embeddings_from_wire(wire: EmbeddingsWire) -> Embeddings:
    """Return the vectors.

    Raises:
        ValueError: the bytes are no whole vectors.
    """
    size = wire.dimensions
    packed = array("d", wire.packed)
    if (len(packed) % size if size > 0 else wire.packed or size) != 0:
        raise ValueError(f"{len(packed)} numbers are no vectors of {size} dimensions")
    starts = range(0, len(packed), size) if size else ()
    return Embeddings(
        vectors=tuple(tuple(packed[at : at + size]) for at in starts),
        usage=cast("Usage", _CODEC.from_wire(wire.usage)),
        model=wire.model,
        labels=wire.labels,
    )


def infer_request_to_wire(request: InferRequest) -> InferRequestWire:
    """Return the wire form of tensors for a model."""
    lean = attrs.evolve(request, asker=None)
    return cast("InferRequestWire", _CODEC.to_wire(lean))


def infer_request_from_wire(wire: InferRequestWire) -> InferRequest:
    """Return the tensors for the model."""
    return cast("InferRequest", _CODEC.from_wire(wire))


def inferred_to_wire(inferred: Inferred) -> InferredWire:
    """Return the wire form of what a model gave."""
    return cast("InferredWire", _CODEC.to_wire(inferred))


def inferred_from_wire(wire: InferredWire) -> Inferred:
    """Return what the model gave.

    Raises:
        ValueError: a tensor has more or fewer bytes than its shape says.
    """
    return cast("Inferred", _CODEC.from_wire(wire))


def figures_to_wire(figures: Iterable[Figure]) -> tuple[FigureWire, ...]:
    """Return the wire form of what a runner tells of its engine.

    Raises:
        ValueError: there are too many, or two of one name.
    """
    found = check_figures(figures)
    return tuple(cast("FigureWire", _CODEC.to_wire(figure)) for figure in found)


def figures_from_wire(wire: Iterable[FigureWire]) -> tuple[Figure, ...]:
    """Return what a runner tells of its engine.

    Raises:
        ValueError: one has no name, there are too many, or two of one name.
    """
    return check_figures(cast("Figure", _CODEC.from_wire(one)) for one in wire)


# --- the rest -------------------------------------------------------------------


def capabilities_to_wire(capabilities: Capabilities) -> CapabilitiesWire:
    """Return the wire form of what a runner can do."""
    return CapabilitiesWire(
        features=tuple(sorted(capabilities.features, key=lambda f: f.value)),
        sampling=tuple(sorted(capabilities.sampling)),
        max_concurrency=capabilities.max_concurrency,
        context_tokens=capabilities.context_tokens,
        max_output_tokens=capabilities.max_output_tokens,
        thinking=capabilities.thinking,
        passes=_sorted(capabilities.passes),
        extra_of=_sorted(capabilities.extra_of),
        url_prefixes=capabilities.url_prefixes,
        max_n=capabilities.max_n,
        selectors=tuple(sorted(capabilities.selectors)),
        members=tuple(sorted(capabilities.members)),
        signature=_signature(capabilities.signature),
    )


def _signature(signature: Signature | None) -> SignatureWire | None:
    if signature is None:
        return None
    return cast("SignatureWire", _CODEC.to_wire(signature))


def _sorted(dialects: frozenset[Dialect]) -> tuple[Dialect, ...]:
    return tuple(sorted(dialects, key=lambda dialect: dialect.value))


def capabilities_from_wire(wire: CapabilitiesWire) -> Capabilities:
    """Return what the runner can do."""
    return Capabilities(
        features=frozenset(wire.features),
        sampling=frozenset(wire.sampling),
        max_concurrency=wire.max_concurrency,
        context_tokens=wire.context_tokens,
        max_output_tokens=wire.max_output_tokens,
        thinking=wire.thinking,
        passes=frozenset(wire.passes),
        extra_of=frozenset(wire.extra_of),
        url_prefixes=wire.url_prefixes,
        max_n=wire.max_n,
        selectors=frozenset(wire.selectors),
        members=frozenset(wire.members),
        signature=None if wire.signature is None else _CODEC.from_wire(wire.signature),
    )


def progress_to_wire(progress: Progress) -> ProgressWire:
    """Return the wire form of how far a start has come; a frame can carry it."""
    return ProgressWire(
        phase=told_text(progress.phase),
        done=_told_count(progress.done),
        total=_told_count(progress.total),
        unit=told_text(progress.unit),
    )


def progress_from_wire(wire: ProgressWire) -> Progress:
    """Return how far the start has come."""
    return same_fields(wire, Progress)


def error_to_wire(record: ErrorRecord) -> ErrorWire:
    """Return the wire form of an error's record; a frame can carry it.

    An error may be somebody else's, and hold anything: what is no text is written as
    one, and what is no number is left out.
    """
    code, param, downgrade_to = record.code, record.param, record.downgrade_to
    return ErrorWire(
        kind=told_text(record.kind),
        message=told_text(record.message),
        code=None if code is None else told_text(code),
        param=None if param is None else told_text(param),
        retry_after_s=_told_seconds(record.retry_after_s),
        status=_told_count(record.status),
        downgrade_to=None if downgrade_to is None else told_text(downgrade_to),
    )


def told_text(text: object) -> str:
    r"""Return what is told in words as a text that is UTF-8, and not too long.

    Names of files that are no UTF-8, and JSON, bring halves of surrogate pairs.

    >>> told_text("no such file: \udcff.txt")
    'no such file: \\udcff.txt'
    """
    said = text if isinstance(text, str) else repr(text)
    left = len(said) - LONGEST_TOLD
    if left > 0:
        said = f"{said[:LONGEST_TOLD]}... ({left} more characters)"
    return said.encode("utf-8", "backslashreplace").decode()


def _told_count(count: object) -> int | None:
    if not isinstance(count, int) or isinstance(count, bool):
        return None
    return count if -_INT64 <= count < _INT64 else None


def _told_seconds(seconds: object) -> float | None:
    if isinstance(seconds, float):
        return seconds
    return _told_count(seconds)


def error_from_wire(wire: ErrorWire) -> ErrorRecord:
    """Return the error's record."""
    return same_fields(wire, ErrorRecord)
