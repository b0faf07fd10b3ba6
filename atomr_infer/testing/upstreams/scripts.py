"""Scripts by name: what a command line, an example or a table can ask for.

Each is a function that returns the behaviours of the first requests; past them
an upstream answers happily.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.testing.upstream_script import (
    Behaviour,
    CutMidStream,
    ErrorInStream,
    HalfClose,
    HangBeforeHeaders,
    HangMidStream,
    Happy,
    HugeLine,
    PromptBlocked,
    RawAnswer,
    ToolCall,
    rate_limited,
    server_error,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Script = tuple[Behaviour, ...]


def happy(count: int = 1) -> Script:
    """Whole answers."""
    return (Happy(),) * count


def inject_429(retry_after: str | None = "1") -> Script:
    """One 429, with the header as it is sent; None: without it."""
    return (rate_limited(retry_after),)


def inject_5xx(count: int = 1, *, status: int = 500) -> Script:
    """So many errors of the server's."""
    return (server_error(status),) * count


def hang_before_headers() -> Script:
    """One request that is taken and not answered."""
    return (HangBeforeHeaders(),)


def hang_mid_stream(after: int = 2) -> Script:
    """One answer that goes silent after so many pieces."""
    return (HangMidStream(after=after),)


def cut_mid_stream(after: int = 2) -> Script:
    """One answer whose connection is dropped after so many pieces."""
    return (CutMidStream(after=after),)


def slow_tokens(delay_s: float = 0.2) -> Script:
    """One answer that waits before each piece, in seconds."""
    return (Happy(delay_s=delay_s),)


def malformed_event(after: int = 2) -> Script:
    """One answer with an event in it that is not JSON."""
    return (Happy(malformed_after=after),)


def split_bytes(every: int = 1) -> Script:
    """One answer in writes of so many bytes."""
    return (Happy(split_bytes=every),)


def half_close(after: int = 2) -> Script:
    """One answer whose sending side ends after so many pieces."""
    return (HalfClose(after=after),)


def error_in_200_stream(after: int = 2) -> Script:
    """One answer that turns into an error after so many pieces."""
    return (ErrorInStream(after=after),)


def wrong_content_type() -> Script:
    """One web page where an answer should be."""
    return (RawAnswer(),)


def huge_line(size_bytes: int = 32 * 1024 * 1024) -> Script:
    """One line that no reader should take."""
    return (HugeLine(size_bytes=size_bytes),)


def tool_call() -> Script:
    """One answer that calls a function."""
    return (ToolCall(),)


def prompt_blocked() -> Script:
    """One prompt that the provider's filter stops."""
    return (PromptBlocked(),)


_BY_FUNCTION: tuple[Callable[[], Script], ...] = (
    happy,
    inject_429,
    inject_5xx,
    hang_before_headers,
    hang_mid_stream,
    cut_mid_stream,
    slow_tokens,
    malformed_event,
    split_bytes,
    half_close,
    error_in_200_stream,
    wrong_content_type,
    huge_line,
    tool_call,
    prompt_blocked,
)

BY_NAME: Mapping[str, Callable[[], Script]] = {
    function.__name__: function for function in _BY_FUNCTION
}
"""The scripts that a command line can name."""
