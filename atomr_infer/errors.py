"""The typed errors of inference, and what each one allows.

An error class says what may be done about it; no caller parses a message:

==================  =====================================================
``retryable``       the same deployment may succeed when asked again
``fallback``        another deployment may succeed with the same request
``breaker_failure`` counts against the health of the endpoint
``rebuild_session`` the session (client, credentials, engine) must be remade
==================  =====================================================

Whether a retry is *allowed* also depends on what the client has already
seen; that decision is ``atomr_infer.policy.failures.retry``'s.

Every class has a stable ``kind``, so that an error survives the trip from an
engine's child process: :func:`encode` and :func:`decode` are inverses.

Pure.
"""

from __future__ import annotations

from typing import ClassVar

import attrs

from atomr.errors import AtomrError

_SHOWN_MISTAKES = 50
"""Of one file; who has more of them has read enough."""


class ConfigError(AtomrError):
    """Something the operator wrote cannot work; the message names it and the fix.

    Attributes:
        path: the file, when the mistake is in one.
        line: the line in ``path``, counted from 1, when it is known.
        setting: the gateway's setting at fault, where no file is known yet.
        more: other mistakes in the same file, by their lines.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        line: int | None = None,
        setting: str | None = None,
    ) -> None:
        self.message = message
        self.path = path
        self.line = line
        self.setting = setting
        self.more: tuple[ConfigError, ...] = ()
        super().__init__(message)

    @property
    def all(self) -> tuple[ConfigError, ...]:
        """This mistake, and those that were found with it."""
        return (self, *self.more)

    @property
    def told(self) -> str:
        """This mistake alone, behind its position: ``file:line: message``."""
        if self.path is None:
            return self.message
        where = self.path if self.line is None else f"{self.path}:{self.line}"
        return f"{where}: {self.message}"

    @property
    def lines(self) -> tuple[str, ...]:
        """What to tell of all of them: a line for each, and how many more there are."""
        shown = tuple(error.told for error in self.all[:_SHOWN_MISTAKES])
        more = len(self.all) - len(shown)
        return (*shown, f"and {more} more mistakes") if more else shown

    def __str__(self) -> str:
        """Return :attr:`lines` as a text."""
        return "\n".join(self.lines)


class MissingSecretError(ConfigError):
    """A credential's environment variable or file is not there or is empty."""


class PluginError(ConfigError):
    """A runtime plugin is missing, broken, duplicated or not installed."""


class InferenceError(AtomrError):
    """A request, a replica or an upstream failed.

    Attributes:
        message: one sentence that is safe to show to a client; no secret.
        code: a machine-readable reason such as ``context_length_exceeded``.
        param: the request field at fault, for the client's own mistakes.
        retry_after_s: seconds to wait, as the upstream asked; None: not said.
        status: the upstream's HTTP status; None when there was none.
        attempts: how often the request was made before this was told; 0: it was
            not, or this is the error of one attempt.
        final: True when who raised it has tried all that could be tried.
    """

    kind: ClassVar[str] = "inference"
    retryable: ClassVar[bool] = False
    fallback: ClassVar[bool] = False
    breaker_failure: ClassVar[bool] = False
    rebuild_session: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
        status: int | None = None,
    ) -> None:
        self.message = message
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s
        self.status = status
        self.attempts = 0
        self.final = False
        super().__init__(message)


# --- the client's -----------------------------------------------------------


class InvalidRequestError(InferenceError):
    """The request cannot be served as it is written; asking again is pointless."""

    kind = "invalid_request"


class UnsupportedFeatureError(InvalidRequestError):
    """The deployment's runtime lacks a capability that the request needs."""

    kind = "unsupported_feature"
    fallback = True


class EndpointUnsupportedError(UnsupportedFeatureError):
    """The deployment's runtime has no such route: embeddings, counting tokens."""

    kind = "endpoint_unsupported"


class ContextLengthError(InvalidRequestError):
    """Prompt and output do not fit the model's context window."""

    kind = "context_length"
    fallback = True


class ContentFilterError(InvalidRequestError):
    """The provider refused the prompt or the answer for its content."""

    kind = "content_filter"


class UnknownReferenceError(InvalidRequestError):
    """The request names what a provider keeps, and nobody knows that it may."""

    kind = "unknown_reference"


class ModelNotFoundError(InferenceError):
    """No deployment serves a model of that name."""

    kind = "model_not_found"


class ModelNotAllowedError(InferenceError):
    """The virtual key may not use the model that the request names."""

    kind = "model_not_allowed"


class BudgetExceededError(InferenceError):
    """A budget has no room for what the request may cost.

    Attributes:
        downgrade_to: the public name of the model that is asked in its place; None:
            it is refused.
    """

    kind = "budget_exceeded"
    downgrade_to: str | None = None


# --- capacity ---------------------------------------------------------------


class RateLimitedError(InferenceError):
    """The upstream asked us to slow down (429)."""

    kind = "rate_limited"
    retryable = True
    fallback = True


class OverloadedError(InferenceError):
    """No capacity here or upstream: the queue is full or the wait was too long."""

    kind = "overloaded"
    retryable = True
    fallback = True


class CircuitOpenError(OverloadedError):
    """The endpoint has failed so often that it is left alone for a while."""

    kind = "circuit_open"
    retryable = False


class NotReadyError(InferenceError):
    """The deployment is not serving: it still loads, is draining, or has failed."""

    kind = "not_ready"
    retryable = True
    fallback = True


# --- the upstream's ---------------------------------------------------------


class UpstreamError(InferenceError):
    """The remote provider failed (5xx, or an error inside its stream)."""

    kind = "upstream"
    retryable = True
    fallback = True
    breaker_failure = True


class UpstreamAuthError(UpstreamError):
    """The provider refused our credentials (401, 402, 403)."""

    kind = "upstream_auth"
    retryable = False
    breaker_failure = False
    rebuild_session = True


class UpstreamConnectError(UpstreamError):
    """No connection to the provider: refused, unreachable, TLS or DNS failure."""

    kind = "upstream_connect"


class UpstreamProtocolError(UpstreamError):
    """The provider's bytes are not what its protocol says."""

    kind = "upstream_protocol"


class StreamCutError(UpstreamError):
    """The stream ended before its finish; what was received is incomplete."""

    kind = "stream_cut"


class AnswerDivergedError(StreamCutError):
    """A cut answer was asked for again, and another one came.

    The upstream that gave the other answer is well.
    """

    kind = "answer_diverged"
    retryable = False
    fallback = False
    breaker_failure = False


class NodeLostError(StreamCutError):
    """The node that worked on it is out of reach; its upstream may be well."""

    kind = "node_lost"
    breaker_failure = False


class UpstreamTimeoutError(UpstreamError):
    """The provider or engine was silent longer than the deployment allows."""

    kind = "upstream_timeout"


class DeadlineError(InferenceError):
    """The request's total time is spent, queue and retries included."""

    kind = "deadline"


# --- the local engine's -----------------------------------------------------


OUT_OF_MEMORY = "out_of_memory"
"""The code of an error that came for want of memory: the process's or the device's."""


class EngineError(InferenceError):
    """A local engine failed; its context is restarted."""

    kind = "engine"
    retryable = True
    fallback = True
    breaker_failure = True
    rebuild_session = True


class EngineStartError(EngineError):
    """The engine could not load the model."""

    kind = "engine_start"
    retryable = False


class EngineCrashedError(EngineError):
    """The engine's child process died: exit code, signal, or lost connection."""

    kind = "engine_crashed"


class EngineHungError(EngineError):
    """The engine's child process stopped answering and was killed."""

    kind = "engine_hung"


class InternalError(InferenceError):
    """A bug on our side; the log has the traceback under the request's id."""

    kind = "internal"


@attrs.frozen
class ErrorRecord:
    """An :class:`InferenceError` as plain values, for the wires between processes."""

    kind: str
    message: str
    code: str | None = None
    param: str | None = None
    retry_after_s: float | None = None
    status: int | None = None
    downgrade_to: str | None = None


def encode(error: InferenceError) -> ErrorRecord:
    """Return the error as plain values; :func:`decode` gives an equal one back."""
    return ErrorRecord(
        kind=error.kind,
        message=error.message,
        code=error.code,
        param=error.param,
        retry_after_s=error.retry_after_s,
        status=error.status,
        downgrade_to=getattr(error, "downgrade_to", None),
    )


def decode(record: ErrorRecord) -> InferenceError:
    """Return the error that ``record`` describes.

    An unknown kind (a newer child than parent) becomes :class:`InternalError`,
    with the kind in its message, rather than a failure to report a failure.
    """
    error_class = _by_kind().get(record.kind)
    message = record.message
    if error_class is None:
        error_class, message = InternalError, f"{record.kind}: {record.message}"
    error = error_class(
        message,
        code=record.code,
        param=record.param,
        retry_after_s=record.retry_after_s,
        status=record.status,
    )
    if isinstance(error, BudgetExceededError) and record.downgrade_to is not None:
        error.downgrade_to = record.downgrade_to
    return error


def _by_kind() -> dict[str, type[InferenceError]]:
    found: dict[str, type[InferenceError]] = {}
    pending: list[type[InferenceError]] = [InferenceError]
    while pending:
        error_class = pending.pop()
        found[error_class.kind] = error_class
        pending.extend(error_class.__subclasses__())
    return found
