"""A deployment's keys: one, several in turn, or the client's own.

What :class:`~atomr_infer.runtimes.credentials.Credentials` promises, for what a
configuration can name.  They outlive the sessions that use them: an engine's
context that is restarted finds the pool as it was.

*One key* is never judged: an upstream that refused it is asked again by the
next request, and with another key at once when there is one by then.  Only when
it was told to wait nobody asks with it until then
(:mod:`atomr_infer.policy.failures.rest`).

*Several keys* are judged by :class:`~atomr_infer.policy.failures.key_pool.KeyPool`.

*The client's key* comes with each request and is forgotten with it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import attrs
import trio

from atomr import telemetry
from atomr_infer.errors import InferenceError, InvalidRequestError
from atomr_infer.model.secret import Secret
from atomr_infer.policy.failures.key_pool import (
    KeyPool,
    KeyState,
    Pick,
    Refusal,
    refusal_of,
)
from atomr_infer.policy.failures.rest import Rest
from atomr_infer.remote.credentials.fetched import FetchedReader
from atomr_infer.remote.credentials.sources import FixedReader, SecretReader
from atomr_infer.runtimes.credentials import NO_HEADERS, Grant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from atomr_infer.runtimes.credentials import Credentials

log = logging.getLogger(__name__)

_SCHEME = "bearer "


def fixed(secret: Secret | None) -> Credentials:
    """Return credentials that are always this key, or none."""
    return NoKey() if secret is None else OneKey(FixedReader(secret))


class _Unjudged:
    """What is the same for keys that are nobody's to judge or to replace."""

    version = 0
    states: tuple[str, ...] = ()

    async def another(self, tried: Sequence[Grant]) -> Grant | None:
        """None: there is no other."""
        return None

    def accepted(self, grant: Grant) -> None:
        """Do nothing."""

    def refused(self, grant: Grant, error: InferenceError) -> bool:
        """False: it was not about a key of ours."""
        return False

    def released(self, grant: Grant) -> None:
        """Do nothing."""

    def look(self) -> int:
        """Return the version: nothing changes."""
        return self.version

    def renew(self) -> None:
        """Do nothing."""


class NoKey(_Unjudged):
    """For an upstream that asks for no key."""

    async def current(self, headers: Mapping[str, str] = NO_HEADERS) -> Grant:
        """Return a grant without a key."""
        return Grant(None)


class ClientKey(_Unjudged):
    """The key that the client sends in a header of each request."""

    def __init__(self, header: str) -> None:
        self._header = header

    async def current(self, headers: Mapping[str, str] = NO_HEADERS) -> Grant:
        """Return the client's key.

        Raises:
            InvalidRequestError: the client sent none.
        """
        text = headers.get(self._header, "")
        if text[: len(_SCHEME)].lower() == _SCHEME:
            text = text[len(_SCHEME) :]
        if not text.strip():
            raise InvalidRequestError(
                f"this model is served with your own key: send it in the header "
                f"{self._header!r}",
                code="missing_upstream_key",
            )
        return Grant(Secret(text.strip()))


class OneKey:
    """One key that may change under way."""

    def __init__(self, reader: SecretReader) -> None:
        self._reader = reader
        self._last: Secret | None = None
        self._refused: Secret | None = None
        self._rest = Rest()
        self.version = 0

    @property
    def states(self) -> tuple[str, ...]:
        """Whether it rests, as one key of a pool would."""
        rests = self._rest.rests(trio.current_time())
        return ((KeyState.RESTING if rests else KeyState.FRESH).value,)

    async def current(self, headers: Mapping[str, str] = NO_HEADERS) -> Grant:
        """Return the key as of now.

        Raises:
            RateLimitedError: the upstream asked us to wait; it says how long.
            InferenceError: it could not be fetched.
        """
        secret = await self._reader.read()
        if secret is not self._last:
            self._note(secret)
        refusal = self._rest.refusal(trio.current_time())
        if refusal is not None:
            raise refusal
        return Grant(secret)

    def _note(self, secret: Secret) -> None:
        changed = self._last is not None and secret != self._last
        if changed and self._reader.text_is_key:
            self._rest.over()
            self.version += 1
        self._last = secret

    async def another(self, tried: Sequence[Grant]) -> Grant | None:
        """Return the key when it is another one by now, once for a request."""
        if len(tried) > 1:
            return None
        grant = await self.current()
        return None if grant.secret == tried[0].secret else grant

    def accepted(self, grant: Grant) -> None:
        """Take the news that the upstream took the key."""
        if grant.secret == self._refused:
            self._refused = None

    def refused(self, grant: Grant, error: InferenceError) -> bool:
        """Have the key read anew when it was refused; after a 429 it rests."""
        why = refusal_of(error)
        if why is Refusal.RATE and grant.secret == self._last:
            self._rest.told(error.retry_after_s, now=trio.current_time())
        if why is None or why is Refusal.RATE or grant.secret is None:
            return False
        self._reader.refused(grant.secret)
        if grant.secret != self._refused:
            # Once for each key: a key that stays bad must not cost every
            # request a new session.
            self._refused = grant.secret
            self.version += 1
        return True

    def released(self, grant: Grant) -> None:
        """Do nothing: one key is not judged."""

    def look(self) -> int:
        """Notice another key, where it is no token that is fetched."""
        secret = self._reader.peek() if self._reader.text_is_key else None
        if secret is not None and secret is not self._last:
            self._note(secret)
        return self.version

    def renew(self) -> None:
        """Read or fetch the key anew, and have sessions built anew."""
        _look_again(self._reader, self._last)
        self._rest.over()
        self.version += 1


@attrs.define(eq=False)
class _Slot:
    reader: SecretReader
    last: Secret | None = None


class PooledKeys:
    """Several keys in turn; see :mod:`atomr_infer.policy.failures.key_pool`."""

    def __init__(
        self, readers: Sequence[SecretReader], pool: KeyPool, *, deployment: str
    ) -> None:
        """Make a pool.

        Args:
            readers: where each key is, in the pool's order.
            pool: their states.
            deployment: whose keys they are, for the log.
        """
        self._slots = [_Slot(reader) for reader in readers]
        self._watched = [
            (key, slot)
            for key, slot in enumerate(self._slots)
            if slot.reader.text_is_key and not isinstance(slot.reader, FixedReader)
        ]
        self._pool = pool
        self._deployment = deployment
        self.version = 0

    @property
    def states(self) -> tuple[str, ...]:
        """What is known of each key: fresh, resting or dead."""
        now = trio.current_time()
        return tuple(
            self._pool.state(key, now).value for key in range(len(self._slots))
        )

    async def current(self, headers: Mapping[str, str] = NO_HEADERS) -> Grant:
        """Return the next key.

        Raises:
            RateLimitedError: all keys rest; it says the shortest wait.
            UpstreamAuthError: all keys are dead.
        """
        self._notice_changes()
        grant = await self._grant(set())
        if grant is None:
            raise self._pool.exhausted(trio.current_time())
        return grant

    async def another(self, tried: Sequence[Grant]) -> Grant | None:
        """Return a key that this request has not tried.

        Raises:
            RateLimitedError: none is left; it says the shortest wait.
            UpstreamAuthError: all keys are dead.
        """
        self._notice_changes()
        grant = await self._grant({_pick(grant).key for grant in tried})
        if grant is None:
            raise self._pool.exhausted(trio.current_time())
        return grant

    def accepted(self, grant: Grant) -> None:
        """Take the news that the upstream took the key."""
        pick = _pick(grant)
        self._pool.accepted(pick)
        if pick.is_probe:
            self._tell(pick.key, KeyState.FRESH, "probe")

    def refused(self, grant: Grant, error: InferenceError) -> bool:
        """Mark the key when the error is about it."""
        pick, why = _pick(grant), refusal_of(error)
        if why is None:
            self._pool.released(pick)
            return False
        slot = self._slots[pick.key]
        if grant.secret is not None and why is not Refusal.RATE:
            slot.reader.refused(grant.secret)
        self._mark(pick, why, error.retry_after_s)
        return True

    def released(self, grant: Grant) -> None:
        """Give back a probe's turn."""
        self._pool.released(_pick(grant))

    def look(self) -> int:
        """Notice keys that were replaced where they are kept."""
        self._notice_changes()
        return self.version

    def renew(self) -> None:
        """Take every key for fresh, read anew, and have sessions built anew."""
        for key, slot in enumerate(self._slots):
            _look_again(slot.reader, slot.last)
            self._pool.changed(key)
        self.version += 1

    async def _grant(self, tried: set[int]) -> Grant | None:
        """Pick a key and read it; one that cannot be fetched is marked dead."""
        while True:
            pick = self._pool.pick(trio.current_time(), tried=tried)
            if pick is None:
                return None
            try:
                return Grant(await self._slots[pick.key].reader.read(), pick)
            except InferenceError as error:
                self._mark(pick, Refusal.CREDENTIAL, error.retry_after_s)
                tried.add(pick.key)
            except BaseException:
                self._pool.released(pick)
                raise

    def _mark(self, pick: Pick, why: Refusal, retry_after_s: float | None) -> None:
        now = trio.current_time()
        before = self._pool.state(pick.key, now)
        self._pool.refused(pick, why, now=now, retry_after_s=retry_after_s)
        after = self._pool.state(pick.key, now)
        if after is before:
            return
        self._tell(pick.key, after, why.value)
        if why is Refusal.CREDENTIAL:
            self.version += 1

    def _tell(self, key: int, state: KeyState, reason: str) -> None:
        """Tell log and telemetry what became of a key, by its place."""
        level = logging.INFO if state is KeyState.FRESH else logging.WARNING
        place = f"key {key + 1} of {len(self._slots)}"
        log.log(
            level, "%s: %s is %s (%s)", self._deployment, place, state.value, reason
        )
        telemetry.emit(
            ("atomr_infer", "credentials", "key"),
            {},
            {
                "deployment": self._deployment,
                "key": key,
                "state": state.value,
                "reason": reason,
            },
        )

    def _notice_changes(self) -> None:
        """Take keys that were replaced where they are kept for fresh ones."""
        for key, slot in self._watched:
            secret = slot.reader.peek()
            if secret is not slot.last:
                if secret != slot.last and slot.last is not None:
                    self._pool.changed(key)
                    self._tell(key, KeyState.FRESH, "replaced")
                    self.version += 1
                slot.last = secret


def _pick(grant: Grant) -> Pick:
    assert isinstance(grant.token, Pick), "a grant of this pool"
    return grant.token


def _look_again(reader: SecretReader, last: Secret | None) -> None:
    if isinstance(reader, FetchedReader):
        reader.forget()
    elif last is not None:
        reader.refused(last)
