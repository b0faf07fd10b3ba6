"""The nouns of inference as they cross the bridge, and the way there and back.

msgspec encodes attrs classes by itself, but not unions of them and not defaults
that take the instance, and it would repeat every field name in every chunk.
So each noun has a wire form here: a frozen struct that is encoded as an array.
``x_from_wire(x_to_wire(value)) == value`` holds for every value.

Pure.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import attrs
import msgspec

from atomr_infer.errors import ErrorRecord
from atomr_infer.model.batch import (
    ExecuteBatch,
    FinishReason,
    Message,
    RawPart,
    Role,
    Sampling,
    TextPart,
    TokenChunk,
    Usage,
)
from atomr_infer.model.capabilities import Capabilities, Feature
from atomr_infer.model.deployment import (
    Deployment,
    Jitter,
    RetryPolicy,
    Serving,
    Timeouts,
)
from atomr_infer.model.secret import EnvSecret, FileSecret, Secret, SecretSource
from atomr_infer.runtimes.contract import Progress

_T = TypeVar("_T")


class _Wire(msgspec.Struct, frozen=True, array_like=True):
    """A value on the wire: an array of its fields."""


class SecretSourceWire(_Wire, frozen=True):
    """Where a secret is found, or (``literal``) the secret itself."""

    kind: Literal["env", "file", "literal"]
    value: str


class ServingWire(_Wire, frozen=True):
    """:class:`Serving`."""

    replicas: int
    max_concurrency: int | None
    max_queue: int
    queue_timeout_s: float


class TimeoutsWire(_Wire, frozen=True):
    """:class:`Timeouts`."""

    load_s: float
    connect_s: float
    first_token_s: float
    idle_s: float
    total_s: float


class RetryWire(_Wire, frozen=True):
    """:class:`RetryPolicy`."""

    max_attempts: int
    backoff_s: float
    max_backoff_s: float
    jitter: Jitter
    idempotent: bool


class DeploymentWire(_Wire, frozen=True):
    """:class:`Deployment`."""

    name: str
    runtime: str
    model: str | None
    serves: tuple[str, ...]
    credential: SecretSourceWire | None
    # msgspec cannot follow the recursive OptionValue; the plugin checks options.
    options: dict[str, Any]
    serving: ServingWire
    timeouts: TimeoutsWire
    retry: RetryWire


class PartWire(_Wire, frozen=True):
    """A content part: text where ``json`` is None, else a raw part."""

    text: str
    json: bytes | None


class MessageWire(_Wire, frozen=True):
    """:class:`Message`."""

    role: Role
    content: str | tuple[PartWire, ...] | None
    extra: dict[str, bytes]


class SamplingWire(_Wire, frozen=True):
    """:class:`Sampling`."""

    temperature: float | None
    top_p: float | None
    max_tokens: int | None
    stop: tuple[str, ...]
    seed: int | None
    presence_penalty: float | None
    frequency_penalty: float | None
    n: int


class BatchWire(_Wire, frozen=True):
    """:class:`ExecuteBatch`."""

    request_id: str
    model: str
    messages: tuple[MessageWire, ...]
    sampling: SamplingWire
    stream: bool
    extra: dict[str, bytes]


class UsageWire(_Wire, frozen=True):
    """:class:`Usage`."""

    input_uncached: int
    output_text: int
    cache_read: int
    reasoning: int
    estimated: bool


class ChunkWire(_Wire, frozen=True):
    """:class:`TokenChunk`."""

    text: str
    index: int
    finish_reason: FinishReason | None
    usage: UsageWire | None
    extra: dict[str, bytes]
    choice_extra: dict[str, bytes]
    model: str | None


class CapabilitiesWire(_Wire, frozen=True):
    """:class:`Capabilities`; the sets are sorted, so that equal is equal bytes."""

    features: tuple[Feature, ...]
    sampling: tuple[str, ...]
    max_concurrency: int
    context_tokens: int | None
    passes_extra: bool


class ProgressWire(_Wire, frozen=True):
    """:class:`Progress`."""

    phase: str
    done: int | None
    total: int | None
    unit: str


class ErrorWire(_Wire, frozen=True):
    """:class:`ErrorRecord`."""

    kind: str
    message: str
    code: str | None
    param: str | None
    retry_after_s: float | None
    status: int | None


def _same_fields(source: object, target: type[_T]) -> _T:
    """Copy a flat value between its two forms, whose field names are equal."""
    names = (
        target.__struct_fields__
        if issubclass(target, msgspec.Struct)
        else tuple(field.name for field in attrs.fields(target))  # type: ignore[arg-type] # attrs.fields wants a type bound to attrs, which object cannot say
    )
    return target(**{name: getattr(source, name) for name in names})


# --- deployment -------------------------------------------------------------


def deployment_to_wire(deployment: Deployment) -> DeploymentWire:
    """Return the wire form; a literal secret goes along in the clear."""
    source = deployment.credential
    return DeploymentWire(
        name=deployment.name,
        runtime=deployment.runtime,
        model=deployment.model,
        serves=deployment.serves,
        credential=None if source is None else _source_to_wire(source),
        options=dict(deployment.options),
        serving=_same_fields(deployment.serving, ServingWire),
        timeouts=_same_fields(deployment.timeouts, TimeoutsWire),
        retry=_same_fields(deployment.retry, RetryWire),
    )


def deployment_from_wire(wire: DeploymentWire) -> Deployment:
    """Return the deployment; it is validated again on the way."""
    source = wire.credential
    return Deployment(
        name=wire.name,
        runtime=wire.runtime,
        model=wire.model,
        serves=wire.serves,
        credential=None if source is None else _source_from_wire(source),
        options=wire.options,
        serving=_same_fields(wire.serving, Serving),
        timeouts=_same_fields(wire.timeouts, Timeouts),
        retry=_same_fields(wire.retry, RetryPolicy),
    )


def _source_to_wire(source: SecretSource) -> SecretSourceWire:
    match source:
        case EnvSecret(variable):
            return SecretSourceWire("env", variable)
        case FileSecret(path):
            return SecretSourceWire("file", path)
        case Secret():
            return SecretSourceWire("literal", source.reveal())


def _source_from_wire(wire: SecretSourceWire) -> SecretSource:
    match wire.kind:
        case "env":
            return EnvSecret(wire.value)
        case "file":
            return FileSecret(wire.value)
        case "literal":
            return Secret(wire.value)


# --- request ----------------------------------------------------------------


def batch_to_wire(batch: ExecuteBatch) -> BatchWire:
    """Return the wire form of a request."""
    return BatchWire(
        request_id=batch.request_id,
        model=batch.model,
        messages=tuple(_message_to_wire(message) for message in batch.messages),
        sampling=_same_fields(batch.sampling, SamplingWire),
        stream=batch.stream,
        extra=dict(batch.extra),
    )


def batch_from_wire(wire: BatchWire) -> ExecuteBatch:
    """Return the request."""
    return ExecuteBatch(
        request_id=wire.request_id,
        model=wire.model,
        messages=tuple(_message_from_wire(message) for message in wire.messages),
        sampling=_same_fields(wire.sampling, Sampling),
        stream=wire.stream,
        extra=wire.extra,
    )


def _message_to_wire(message: Message) -> MessageWire:
    content = message.content
    return MessageWire(
        role=message.role,
        content=(
            tuple(_part_to_wire(part) for part in content)
            if isinstance(content, tuple)
            else content
        ),
        extra=dict(message.extra),
    )


def _message_from_wire(wire: MessageWire) -> Message:
    content = wire.content
    return Message(
        role=wire.role,
        content=(
            tuple(_part_from_wire(part) for part in content)
            if isinstance(content, tuple)
            else content
        ),
        extra=wire.extra,
    )


def _part_to_wire(part: TextPart | RawPart) -> PartWire:
    if isinstance(part, TextPart):
        return PartWire(part.text, None)
    return PartWire(part.kind, part.json)


def _part_from_wire(wire: PartWire) -> TextPart | RawPart:
    if wire.json is None:
        return TextPart(wire.text)
    return RawPart(wire.text, wire.json)


# --- answer -----------------------------------------------------------------


def chunk_to_wire(chunk: TokenChunk) -> ChunkWire:
    """Return the wire form of a piece of an answer."""
    usage = chunk.usage
    return ChunkWire(
        text=chunk.text,
        index=chunk.index,
        finish_reason=chunk.finish_reason,
        usage=None if usage is None else _same_fields(usage, UsageWire),
        extra=dict(chunk.extra),
        choice_extra=dict(chunk.choice_extra),
        model=chunk.model,
    )


def chunk_from_wire(wire: ChunkWire) -> TokenChunk:
    """Return the piece of an answer."""
    usage = wire.usage
    return TokenChunk(
        text=wire.text,
        index=wire.index,
        finish_reason=wire.finish_reason,
        usage=None if usage is None else _same_fields(usage, Usage),
        extra=wire.extra,
        choice_extra=wire.choice_extra,
        model=wire.model,
    )


def capabilities_to_wire(capabilities: Capabilities) -> CapabilitiesWire:
    """Return the wire form of what a runner can do."""
    return CapabilitiesWire(
        features=tuple(sorted(capabilities.features, key=lambda f: f.value)),
        sampling=tuple(sorted(capabilities.sampling)),
        max_concurrency=capabilities.max_concurrency,
        context_tokens=capabilities.context_tokens,
        passes_extra=capabilities.passes_extra,
    )


def capabilities_from_wire(wire: CapabilitiesWire) -> Capabilities:
    """Return what the runner can do."""
    return Capabilities(
        features=frozenset(wire.features),
        sampling=frozenset(wire.sampling),
        max_concurrency=wire.max_concurrency,
        context_tokens=wire.context_tokens,
        passes_extra=wire.passes_extra,
    )


def progress_to_wire(progress: Progress) -> ProgressWire:
    """Return the wire form of how far a start has come."""
    return _same_fields(progress, ProgressWire)


def progress_from_wire(wire: ProgressWire) -> Progress:
    """Return how far the start has come."""
    return _same_fields(wire, Progress)


def error_to_wire(record: ErrorRecord) -> ErrorWire:
    """Return the wire form of an error's record."""
    return _same_fields(record, ErrorWire)


def error_from_wire(wire: ErrorWire) -> ErrorRecord:
    """Return the error's record."""
    return _same_fields(wire, ErrorRecord)
