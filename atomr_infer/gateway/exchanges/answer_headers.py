"""The headers of answers: who served, how, and what was left out.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.model.dialect import Dialect

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atomr_infer.errors import InferenceError
    from atomr_infer.model.cost import Cost
    from atomr_infer.serving.requests.request import Served
    from atomr_infer.wire.ingress import Asked

STREAM_HEADERS = (
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
"""What every stream has beside its media type (W1)."""

RATE_HEADERS = tuple(
    f"x-ratelimit-{what}-{counts}"
    for counts in ("requests", "tokens")
    for what in ("limit", "remaining", "reset")
)
"""What an answer to a virtual key with rate limits has, as OpenAI's has."""

OWN_HEADERS: tuple[str, ...] = (
    "x-request-id",
    "request-id",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "x-atomr-attempts",
    "x-atomr-cost-usd",
    "x-atomr-deployment",
    "x-atomr-downgraded",
    "x-atomr-loading",
    "x-atomr-model",
    "x-atomr-native-finish-reason",
    "x-atomr-overhead-ms",
    "x-atomr-recovered",
    "x-atomr-route",
    "x-atomr-stages",
    "x-atomr-warnings",
    *RATE_HEADERS,
)
"""What a program reads of an answer."""

_MAX_HEADER = 500  # characters; proxies refuse long headers


def request_id_headers(
    request_id: str, dialect: Dialect
) -> tuple[tuple[bytes, bytes], ...]:
    """Return the request's id under the names that the dialect's clients read."""
    value = request_id.encode()
    if dialect is Dialect.ANTHROPIC:
        return ((b"x-request-id", value), (b"request-id", value))
    return ((b"x-request-id", value),)


def failed_headers(error: InferenceError) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers that say how often a request was made that failed.

    Where it was made more than once, a client that makes it again multiplies
    what the gateway did, and where the error says that it stays, it does so for
    nothing; the SDKs of OpenAI and Anthropic obey the second header.
    """
    told: list[tuple[bytes, bytes]] = []
    if error.attempts:
        told.append((b"x-atomr-attempts", str(error.attempts).encode()))
    stays = not error.retryable and error.retry_after_s is None
    if error.attempts > 1 or stays:
        told.append((b"x-should-retry", b"false"))
    return tuple(told)


def served_headers(
    served: Served, asked: Asked, dialect: Dialect
) -> list[tuple[bytes, bytes]]:
    """Return the headers that say who answered, and what had no effect."""
    found = list(whole_headers(served, dialect))
    warnings = [*asked.warnings, *served.warnings]
    if served.ignored:
        warnings.append("ignored by this model: " + ", ".join(served.ignored))
    if warnings:
        found.append((b"x-atomr-warnings", header_text("; ".join(warnings))))
    if served.recovered:
        found.append((b"x-atomr-recovered", b"true"))
    if served.model != asked.batch.model:
        found.append((b"x-atomr-model", header_text(asked.batch.model)))
    return found


def whole_headers(served: Served, dialect: Dialect) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers that say who answered."""
    return (
        *request_id_headers(served.request_id, dialect),
        *_downgraded_headers(served),
        *_stages_headers(served),
        (b"x-atomr-deployment", served.deployment.encode()),
        (b"x-atomr-attempts", str(len(served.attempts)).encode()),
        (b"x-atomr-route", served.route),
    )


def _downgraded_headers(served: Served) -> tuple[tuple[bytes, bytes], ...]:
    if not served.downgraded:
        return ()
    return ((b"x-atomr-downgraded", header_text(served.downgraded)),)


def _stages_headers(served: Served) -> tuple[tuple[bytes, bytes], ...]:
    if not served.stages:
        return ()
    return ((b"x-atomr-stages", header_text(", ".join(served.stages))),)


def cost_headers(cost: Cost | None) -> tuple[tuple[bytes, bytes], ...]:
    """Return the header that says what an answer cost; none where nobody knows."""
    if cost is None:
        return ()
    return ((b"x-atomr-cost-usd", cost.usd_text.encode()),)


def cost_comment(cost: Cost | None) -> bytes:
    """Return the comment behind a stream's last event; b"" where nobody knows.

    The headers of a stream are gone when its cost is known, and a trailer is
    something that no SDK shows.
    """
    return b"".join(b": %s: %s\n\n" % header for header in cost_headers(cost))


def warning_comment(text: str) -> bytes:
    """Return the comment for what became known when the headers were gone."""
    return b": x-atomr-warnings: %s\n\n" % header_text(text)


def rate_headers(
    counts: str, *, limit: int, used: int, window_s: float
) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers that say what is left of a rate limit, as OpenAI's do.

    >>> rate_headers("requests", limit=5, used=2, window_s=60.0)[1]
    (b'x-ratelimit-remaining-requests', b'3')
    """
    # In a sliding window all is there again when the last use is a window old.
    reset_s = window_s if used else 0.0
    told = (("limit", str(limit)), ("remaining", str(max(0, limit - used))))
    return tuple(
        (f"x-ratelimit-{what}-{counts}".encode(), text.encode())
        for what, text in (*told, ("reset", f"{reset_s:g}s"))
    )


def overhead_headers(overhead_s: float) -> tuple[tuple[bytes, bytes], ...]:
    """Return the header that says how much of an answer's time was ours."""
    return ((b"x-atomr-overhead-ms", b"%.2f" % (overhead_s * 1000)),)


def native_finish_headers(
    words: Iterable[str], body: bytes
) -> tuple[tuple[bytes, bytes], ...]:
    """Return the header with the upstream's words for why an answer ended.

    Args:
        words: its words, one for each choice.
        body: the answer; a word that stands in it is not repeated.
    """
    unsaid = [word for word in dict.fromkeys(words) if f'"{word}"'.encode() not in body]
    if not unsaid:
        return ()
    return ((b"x-atomr-native-finish-reason", header_text(", ".join(unsaid))),)


def header_text(text: str) -> bytes:
    """Make text that a client wrote fit for a header: printable, bounded."""
    shown = text if len(text) <= _MAX_HEADER else text[:_MAX_HEADER] + "..."
    return "".join(c if " " <= c <= "~" else "?" for c in shown).encode("ascii")
