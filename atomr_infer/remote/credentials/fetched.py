"""A token that is fetched, kept, and renewed ahead of its end by one caller.

Three rules, whatever the provider:

*Single flight.*  One fetch is under way at a time.  While a token is still
valid everybody else uses it; without one they wait for that fetch, and share
its failure.  A fetch whose caller leaves is taken over by one who waits.

*Ahead of the end.*  The first request in the last part of a token's life
renews it.  No task does so in the background: a deployment that nobody uses
asks for no tokens.

*No hammering.*  After a failure nobody asks again for a growing time, and a
token that is refused when it is new is not fetched anew at once.
"""

from __future__ import annotations

import logging
import math
import traceback
from typing import TYPE_CHECKING

import attrs
import trio

from atomr_infer.errors import (
    ConfigError,
    InferenceError,
    UpstreamAuthError,
    UpstreamTimeoutError,
    decode,
    encode,
)
from atomr_infer.model.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from atomr_infer.runtimes.credentials import Fetched

log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class FetchLimits:
    """When tokens are fetched, in seconds.

    Attributes:
        fetch_s: longest time for one fetch.
        ahead_s: how long before its end a token is renewed; a fifth of its
            life, where that is less.
        again_s: wait after a failed fetch; doubles with each further one.
        max_again_s: longest such wait.
        young_s: a token that is refused within this time of its fetch is kept:
            a new one would be refused as well.
    """

    fetch_s: float = 30.0
    ahead_s: float = 120.0
    again_s: float = 1.0
    max_again_s: float = 60.0
    young_s: float = 5.0


_DEFAULT_LIMITS = FetchLimits()


@attrs.frozen
class _Held:
    secret: Secret
    fetched_at: float
    renew_at: float
    ends_at: float


@attrs.define(eq=False)
class _Flight:
    """A fetch that is under way; ``error`` and ``secret`` are None when given up."""

    done: trio.Event = attrs.field(factory=trio.Event)
    secret: Secret | None = None
    error: InferenceError | None = None


class FetchedReader:
    """Reads a token through ``fetch``; see the module's rules."""

    text_is_key = False

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Fetched]],
        *,
        label: str,
        limits: FetchLimits = _DEFAULT_LIMITS,
    ) -> None:
        """Prepare; nothing is fetched before it is needed.

        Args:
            fetch: gets one token.
            label: what errors and logs call the provider.
            limits: when tokens are fetched.
        """
        self._fetch = fetch
        self._label = label
        self._limits = limits
        self._held: _Held | None = None
        self._flight: _Flight | None = None
        self._failure: InferenceError | None = None
        self._failures = 0
        self._again_at = -math.inf

    def peek(self) -> None:
        """None: a token is fetched."""

    async def read(self) -> Secret:
        """Return a valid token.

        Raises:
            UpstreamAuthError: the provider refuses, or fails.
            UpstreamTimeoutError: it took too long.
            InferenceError: as the provider says.

        Cancellation: gives the fetch up; one who waits for it takes it over.
        """
        while True:
            now = trio.current_time()
            held = self._held
            if held is not None and now < held.renew_at:
                return held.secret
            busy = self._flight is not None or now < self._again_at
            if held is not None and now < held.ends_at and busy:
                return held.secret
            if self._flight is None:
                return await self._renew(now)
            secret = await _joined(self._flight)
            if secret is not None:
                return secret

    def refused(self, secret: Secret) -> None:
        """Drop the token, unless it is very young."""
        held = self._held
        if held is None or held.secret != secret:
            return
        if trio.current_time() - held.fetched_at >= self._limits.young_s:
            self._held = None

    def forget(self) -> None:
        """Drop the token, however young, and the memory of failures."""
        self._held = None
        self._failures = 0
        self._again_at = -math.inf

    async def _renew(self, now: float) -> Secret:
        if now < self._again_at:
            assert self._failure is not None, "a wait comes from a failure"
            raise _copy(self._failure)
        flight = self._flight = _Flight()
        try:
            fetched = await self._fetch_typed()
        except InferenceError as error:
            flight.error = error
            self._failed(error)
            held = self._held
            if held is not None and trio.current_time() < held.ends_at:
                return held.secret
            raise
        else:
            flight.secret = fetched.secret
            self._take(fetched)
            return fetched.secret
        finally:
            self._flight = None
            flight.done.set()

    def _take(self, fetched: Fetched) -> None:
        now = trio.current_time()
        life_s = math.inf if fetched.expires_in_s is None else fetched.expires_in_s
        ahead_s = min(self._limits.ahead_s, life_s / 5)
        self._held = _Held(fetched.secret, now, now + life_s - ahead_s, now + life_s)
        self._failures = 0
        self._again_at = -math.inf

    def _failed(self, error: InferenceError) -> None:
        wait_s = self._limits.again_s * 2.0 ** min(self._failures, 64)
        self._failures += 1
        self._failure = _copy(error)
        self._again_at = trio.current_time() + min(wait_s, self._limits.max_again_s)
        log.warning("%s gave no token: %s", self._label, error)

    async def _fetch_typed(self) -> Fetched:
        with trio.move_on_after(self._limits.fetch_s):
            try:
                return await self._fetch()
            except InferenceError:
                raise
            except ConfigError as error:
                # A variable or a file that was there when we started.
                raise UpstreamAuthError(str(error)) from error
            except Exception as error:  # noqa: BLE001 - a boundary: told, and raised
                # A provider is foreign code.  What it raised may show a secret,
                # so its class and its place are told, and its text is not.
                log.error(  # noqa: TRY400 - the text stays out of the log
                    "%s failed with %s, %s",
                    self._label,
                    type(error).__name__,
                    _place(error),
                )
                raise UpstreamAuthError(f"{self._label} failed; see the log") from None
        raise UpstreamTimeoutError(
            f"{self._label} gave no token within {self._limits.fetch_s:g} s",
            code="token_timeout",
        )


def _place(error: Exception) -> str:
    """Return where an error was raised, and who had called there, in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    return " < ".join(
        f"in {f.name} ({f.filename}:{f.lineno})" for f in reversed(frames)
    )


async def _joined(flight: _Flight) -> Secret | None:
    """Wait for somebody's fetch; None when it was given up."""
    await flight.done.wait()
    if flight.error is not None:
        raise _copy(flight.error)
    return flight.secret


def _copy(error: InferenceError) -> InferenceError:
    """Return an equal error without traceback: one object is raised only once."""
    return decode(encode(error))
