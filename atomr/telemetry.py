"""Events for whoever listens: metrics, tracing, an observer.

An event is a tuple of names with measurements (numbers) and metadata (values).
Handlers run in line, in the order of their attachment, on the emitting task;
they must be quick and must not block.  A handler that raises is detached and
logged: observation never breaks what it observes.

Cost: with no handler attached :func:`emit` is one falsy test.  A caller on a
hot path tests :data:`handlers` itself and spares building the arguments.

Imports no trio.

Source: Erlang's ``telemetry`` library.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TypeAlias

import attrs

Event: TypeAlias = tuple[str, ...]
Handler: TypeAlias = Callable[[Event, Mapping[str, float], Mapping[str, object]], None]

_log = logging.getLogger("atomr.telemetry")
_NOTHING: Mapping[str, float] = {}


@attrs.frozen
class _Attached:
    handler_id: str
    prefix: Event
    handler: Handler


handlers: tuple[_Attached, ...] = ()
"""What is attached; replaced whole, so that emitting needs no lock."""


def emit(
    event: Event,
    measurements: Mapping[str, float] = _NOTHING,
    metadata: Mapping[str, object] = _NOTHING,
) -> None:
    """Call each handler whose prefix the event starts with; never raises.

    Args:
        event: names from the general to the special: ``("atomr", "process",
            "start")``.
        measurements: numbers, with the unit in the key (``duration_s``).
        metadata: what the event is about.
    """
    if not handlers:
        return
    for attached in handlers:
        if event[: len(attached.prefix)] != attached.prefix:
            continue
        try:
            attached.handler(event, measurements, metadata)
        except Exception:  # noqa: BLE001 - a boundary: reported, and detached
            detach(attached.handler_id)
            _log.exception(
                "telemetry handler %r failed on %r and was detached",
                attached.handler_id,
                event,
            )


def attach(handler_id: str, prefix: Event, handler: Handler) -> None:
    """Call ``handler`` for each event that starts with ``prefix``.

    Args:
        handler_id: its name, for :func:`detach`.
        prefix: ``()`` for all events.
        handler: called with event, measurements and metadata.

    Raises:
        ValueError: a handler of that id is attached already.
    """
    global handlers  # noqa: PLW0603 - replaced whole; see its comment
    if any(attached.handler_id == handler_id for attached in handlers):
        raise ValueError(f"attach({handler_id!r}): that handler id is attached already")
    handlers = (*handlers, _Attached(handler_id, prefix, handler))


def detach(handler_id: str) -> bool:
    """Stop calling the handler; return whether it was attached."""
    global handlers  # noqa: PLW0603 - replaced whole; see its comment
    kept = tuple(a for a in handlers if a.handler_id != handler_id)
    found = len(kept) != len(handlers)
    handlers = kept
    return found
