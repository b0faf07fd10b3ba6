"""What must be done in the end is tried again, as what stands in its way may pass."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from atomr.errors import AtomrError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)


def _say_nothing(_: AtomrError) -> None:
    """Tell nobody but the log."""


async def until_done(
    do: Callable[[], Awaitable[None]],
    failed: Callable[[AtomrError], None] = _say_nothing,
) -> AtomrError | None:
    """Do something, and again where it fails, for about a minute.

    Args:
        do: does it.
        failed: called with each error after which it is tried again.

    Returns:
        The last error; None: it is done.

    Cancellation: ends what is done just then.
    """
    for pause_s in _PAUSES_S:
        try:
            await do()
        except AtomrError as error:
            log.warning("the end of a swap is tried again: %r", error)
            failed(error)
        else:
            return None
        await trio.sleep(pause_s)
    try:
        await do()
    except AtomrError as error:
        log.exception("the end of a swap is tried no more")
        return error
    return None
