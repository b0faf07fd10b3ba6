"""Where virtual keys are kept: three replicated values, of which nothing is taken back.

======================  ============================================================
``virtual keys``        a map: the terms of a key, by its id
``virtual key secrets`` a map: whose a secret is, by its digest
``virtual key ends``    a set that only grows: what was revoked, and what was rotated
======================  ============================================================

Of one map's value for a key, the later of two writes counts, and the other is lost.
That must not be a revocation, or the only record of a secret that somebody was shown;
so neither is a member of a key's terms.  An element of the set cannot be lost: a key
that one node has revoked is revoked, on every node that has heard of it, whatever
others did to it meanwhile.  The values come to a node that starts each in its own time,
though, and each from its beginning: a secret, and a second later that it was revoked.
So what others tell it at first opens nothing before they have said all of it
(:mod:`.key_hearing`); and a secret's record says its end as well.  And what is only
ever added can be put again:
what this node knows and its replicator has lost, with its file or for want of one, is.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import trio

from atomr.cluster.replicator import (
    ABSENT,
    Changed,
    Missed,
    NotReplicatingError,
    NotStoredError,
    ReplicatorError,
)
from atomr.core.messages import Down
from atomr.crdt import GSet
from atomr.errors.processes import ReceiveTimeoutError
from atomr.process import monitor, receive
from atomr_infer.policy.tenants.key_records import (
    KeyRecordError,
    ends_of,
    key_of,
    secret_of,
    secret_record,
    terms_record,
)
from atomr_infer.serving.limits.key_errors import KeysNotKeptError

if TYPE_CHECKING:
    from atomr.cluster.replicator import Replicator
    from atomr_infer.model.virtual_key import KeySecret, VirtualKey
    from atomr_infer.policy.tenants.key_table import KeyTable

log = logging.getLogger(__name__)

_KEYS = "virtual keys"
_SECRETS = "virtual key secrets"
_ENDS = "virtual key ends"

_REVOKED = "revoked"
_ROTATED = "rotated"

_BACK_S = 0.05

_LOOK_S = 0.05
"""A node that has just started looks so often whether others have told it all."""


class Listener(Protocol):
    """Who hears of keys.

    Attributes:
        table: what it has heard.
    """

    table: KeyTable

    @property
    def is_newcomer(self) -> bool:
        """Whether others may not have told it all keys yet."""
        ...

    def hear_key(self, key: VirtualKey) -> None:
        """Take a key's terms."""
        ...

    def hear_secret(self, secret: KeySecret) -> None:
        """Take a secret."""
        ...

    def hear_revoked(self, key: str, at_s: int) -> None:
        """Take that a key was revoked."""
        ...

    def holds(self, secret: KeySecret) -> bool:
        """Whether a secret from elsewhere may have ended without a word of it yet."""
        ...


class KeyFacts:
    """What this node and others say of keys.

    Attributes:
        keys: the terms of each key.
        secrets: whose each secret is.
        ends: what was revoked, and what was rotated.
        heard: set when all is in the table that others knew as this node started.
    """

    def __init__(self, replicator: Replicator, listener: Listener) -> None:
        self._replicator = replicator
        self._listener = listener
        self.keys = replicator.open_map(_KEYS)
        self.secrets = replicator.open_map(_SECRETS)
        self.ends = replicator.open(GSet, _ENDS)
        self.heard = trio.Event()

    @property
    def is_stored(self) -> bool:
        """Whether they outlive the node's processes, as far as is configured."""
        return self._replicator.store is not None

    # --- said here --------------------------------------------------------------------

    def check(self) -> None:
        """Raise where nothing can be said now.

        Raises:
            KeysNotKeptError: the replicator does not run.
        """
        try:
            self._replicator.running()
        except NotReplicatingError as error:
            raise KeysNotKeptError(str(error)) from error

    def say_key(self, key: VirtualKey) -> None:
        """Say a key's terms."""
        self.keys.put(key.id, terms_record(key))

    def say_secret(self, secret: KeySecret) -> None:
        """Say whose a secret is."""
        table = self._listener.table
        record = secret_record(
            secret,
            revoked_at_s=table.revoked_at_s(secret.key),
            ends_at_s=table.ends.get(secret.digest),
        )
        self.secrets.put(secret.digest.hex(), record)

    def say_revoked(self, key: str, at_s: int) -> None:
        """Say that a key is revoked; the table knows it."""
        self._say_end(_REVOKED, key, at_s)
        for standing in self._listener.table.standings(key):
            self.say_secret(standing.secret)

    def say_rotated(self, digest: bytes, at_s: int) -> None:
        """Say when a secret ends, for another one; the table knows it."""
        self._say_end(_ROTATED, digest.hex(), at_s)
        standing = self._listener.table.find(digest)
        if standing is not None:
            self.say_secret(standing.secret)

    def _say_end(self, how: str, what: str, at_s: int) -> None:
        self.ends.write(lambda ends: ends.add((how, what, at_s)))

    async def store(self) -> bool:
        """Wait until what was said is on the disk; return whether there is one.

        Raises:
            KeysNotKeptError: it cannot be written.
        """
        if not self.is_stored:
            await trio.lowlevel.checkpoint()
            return False
        try:
            await self._replicator.sync()
        except NotStoredError:
            return False  # it goes on in memory alone, and has said so in the log
        except ReplicatorError as error:
            raise KeysNotKeptError(str(error)) from error
        return True

    # --- heard ------------------------------------------------------------------------

    async def run(self) -> None:
        """Let the listener hear, over the lives of the replicator."""
        is_first = True
        while True:
            server = self._replicator.server
            if server is None:
                await trio.sleep(_BACK_S)
                continue
            down = monitor(server.pid)
            for handle in (self.keys, self.secrets, self.ends):
                handle.subscribe()
            # What the file holds was there together, before anybody told anything.
            is_own = is_first and self.is_stored and not self._replicator.told()
            is_newcomer = self._listener.is_newcomer
            self._merge(is_own=is_own)
            if not is_newcomer:
                self.heard.set()
            is_first = False
            while True:
                told = await self._next()
                self._open_held()
                match told:
                    case Changed():
                        self._heard(told.name, told.key, told.new)
                    case Missed():
                        self._merge()
                    case Down(ref=ref) if ref == down:
                        break

    async def _next(self) -> object:
        """Wait for news; None: it is time to look whether others have told all."""
        if self.heard.is_set():
            return await receive()
        with suppress(ReceiveTimeoutError):
            return await receive(timeout_s=_LOOK_S)
        return None

    def _open_held(self) -> None:
        """Hear all anew, once others have told it, ends before what they end.

        Before any message that may be older than that.
        """
        if self.heard.is_set() or self._listener.is_newcomer:
            return
        if self._replicator.server is not None:
            self._merge()
            self.heard.set()

    def _merge(self, *, is_own: bool = False) -> None:
        """Hear all that is there, and put what is not.

        Args:
            is_own: whether all of it is this node's own.
        """
        # First, or what has ended would open until then.
        for element in self.ends.read().value:
            self._heard(_ENDS, element, None)
        for key, record in self.keys.items():
            self._heard(_KEYS, key, record)
        for digest, record in self.secrets.items():
            self._heard(_SECRETS, digest, record, is_own=is_own)
        self._put_again()

    def _put_again(self) -> None:
        table = self._listener.table
        for id_, key in table.keys.items():
            if id_ not in self.keys:
                self.say_key(key)
        for secret in table.secrets():
            if secret.digest.hex() not in self.secrets:
                self.say_secret(secret)
        there = self.ends.read()
        ended = [(_REVOKED, id_, at_s) for id_, at_s in table.revoked.items()]
        ended += [(_ROTATED, d.hex(), at_s) for d, at_s in table.ends.items()]
        for how, what, at_s in ended:
            if (how, what, at_s) not in there:
                self._say_end(how, what, at_s)

    def _heard(self, name: str, key: Any, new: Any, *, is_own: bool = False) -> None:  # noqa: ANN401 - anything
        if new is ABSENT:
            return  # nothing is ever taken back
        try:
            if name == _KEYS:
                self._heard_key(key, new)
            elif name == _SECRETS:
                self._heard_secret(key, new, is_own=is_own)
            else:
                self._heard_end(key)
        except KeyRecordError as error:
            log.error(  # noqa: TRY400 - what is wrong is told by its words
                "%s: %r cannot be read, so it opens nothing here: %s",
                name,
                key,
                error,
            )

    def _heard_key(self, id_: object, record: object) -> None:
        try:
            self._listener.hear_key(key_of(id_, record))
        except KeyRecordError:
            self._listener.table.close_key(str(id_))
            raise

    def _heard_secret(self, digest: object, record: object, *, is_own: bool) -> None:
        secret = secret_of(digest, record)
        revoked_at_s, ends_at_s = ends_of(record)
        # First, or it would open until then.
        if revoked_at_s is not None:
            self._listener.hear_revoked(secret.key, revoked_at_s)
        if ends_at_s is not None:
            self._listener.table.take_end(secret.digest, ends_at_s)
        if is_own or not self._listener.holds(secret):
            self._listener.hear_secret(secret)

    def _heard_end(self, element: object) -> None:
        match element:
            case (str(how), str(what), int(at_s)) if how == _REVOKED:
                self._listener.hear_revoked(what, at_s)
            case (str(how), str(what), int(at_s)) if how == _ROTATED:
                self._listener.table.take_end(_digest(what), at_s)
            case _:
                raise KeyRecordError("it is no end of a key")


def _digest(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise KeyRecordError("it is no digest") from error
