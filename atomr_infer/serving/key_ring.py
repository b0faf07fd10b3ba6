"""The virtual keys that this node knows, which are those of all nodes.

They are kept in the node's replicated values, in three of them:

======================  ============================================================
``virtual keys``        a map: the terms of a key, by its id
``virtual key secrets`` a map: whose a secret is, by its digest
``virtual key ends``    a set that only grows: what was revoked, and what was rotated
======================  ============================================================

Of one map's value for a key, the later of two writes counts, and the other is lost.
That must not be a revocation, or the only record of a secret that somebody was shown;
so neither is a member of a key's terms.  An element of the set cannot be lost: a key
that one node has revoked is revoked, on every node that has heard of it, whatever
others did to it meanwhile.  And what is only ever added can be put again: what this
node knows and its replicator has lost, with its file or for want of one, is.

A request is looked up in a dictionary, and waits for nothing.  The ring's process
keeps that dictionary true, some milliseconds behind what others write; what is
written here is in it at once.
"""

from __future__ import annotations

import logging
import secrets as system_random
import time
from typing import TYPE_CHECKING, Any

import attrs
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
from atomr.process import monitor, receive
from atomr_infer.model.key_secret import (
    SECRET_BYTES,
    digest_of,
    make_secret,
    shown,
)
from atomr_infer.model.secret import Secret
from atomr_infer.model.virtual_key import KeySecret, VirtualKey
from atomr_infer.policy.key_records import (
    KeyRecordError,
    key_of,
    secret_of,
    secret_record,
    terms_record,
)
from atomr_infer.policy.key_table import KeyTable
from atomr_infer.serving.key_errors import (
    KeyOverError,
    KeysNotKeptError,
    KeyTakenError,
    NoSuchKeyError,
    NoSuchTeamError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from atomr.cluster.replicator import Replicator
    from atomr_infer.model.team import Team
    from atomr_infer.serving.key_gates import KeyGates

log = logging.getLogger(__name__)

_KEYS = "virtual keys"
_SECRETS = "virtual key secrets"
_ENDS = "virtual key ends"

_REVOKED = "revoked"
_ROTATED = "rotated"

_BACK_S = 0.05

_SKEW_S = 5.0
"""By how much the clocks of nodes may differ, for a key to be known as newer than this
program; one that is not waits a window for what may have been used before."""


@attrs.frozen
class Issued:
    """A secret that was made; nobody can show it again.

    Attributes:
        key: whose it is.
        secret: the secret.
        is_stored: whether it outlives the node's processes.
    """

    key: VirtualKey
    secret: Secret
    is_stored: bool


class KeyRing:
    """Virtual keys: looked up, made, revoked, rotated.

    Attributes:
        table: what this node has heard.
        wall_s: the wall's clock, Unix time in seconds.
        is_taken: whether a gateway of this node lets them in.
        find: :meth:`KeyTable.find` of the table.
    """

    def __init__(
        self,
        replicator: Replicator,
        gates: KeyGates | None = None,
        *,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        """Make an empty ring.

        Args:
            replicator: where keys are kept.
            gates: what keys may use; None: nobody keeps it.
            wall_s: the wall's clock.
        """
        self.table = KeyTable()
        self._gates = gates
        self._began_at_s = wall_s()
        self.find = self.table.find
        self.wall_s = wall_s
        self.is_taken = False
        self._replicator = replicator
        self._keys = replicator.open_map(_KEYS)
        self._secrets = replicator.open_map(_SECRETS)
        self._ends = replicator.open(GSet, _ENDS)

    def __repr__(self) -> str:
        return f"<KeyRing: {len(self.table)}>"

    @property
    def is_stored(self) -> bool:
        """Whether keys outlive the node's processes, as far as is configured."""
        return self._replicator.store is not None

    def take_teams(self, teams: Iterable[Team]) -> None:
        """Take the teams that keys may name, from now on."""
        teams = tuple(teams)
        self.table.take_teams(teams)
        if self._gates is not None:
            self._gates.take_teams(teams)

    # --- what operators do --------------------------------------------------------

    def new_id(self) -> str:
        """Return the id for a new key."""
        return VirtualKey.make_id(system_random.token_bytes(8))

    async def create(self, key: VirtualKey) -> Issued:
        """Make a key, which opens at once here, and soon everywhere.

        Raises:
            KeyTakenError: a key that is not over has its name.
            NoSuchTeamError: its team is not configured here.
            KeysNotKeptError: it cannot be kept; it was revoked again.

        Cancellation: the key may be there, and nobody knows its secret.
        """
        for other in self.table.named(key.name):
            if not self.table.is_over(other.id, self.wall_s()):
                raise KeyTakenError(other)
        if key.team is not None and key.team not in self.table.teams:
            raise NoSuchTeamError(key.team, self.table.teams)
        self._replicating()
        self._keys.put(key.id, terms_record(key))
        self._take_key(key, is_new=True)
        return await self._issue(key)

    async def rotate(self, name: str, *, grace_s: float) -> Issued:
        """Give a key another secret, and end those that it has.

        Args:
            name: its id, or its name.
            grace_s: how long the present secrets still open; 0: not at all.

        Raises:
            NoSuchKeyError: there is none, or several have the name.
            KeyOverError: it is revoked or has expired.
            KeysNotKeptError: the new secret cannot be kept; the key is as before.

        Cancellation: as for :meth:`create`; the present secrets may stay.
        """
        key = self._one(name)
        now_s = self.wall_s()
        if self.table.is_over(key.id, now_s):
            raise KeyOverError(key)
        before = self.table.standings(key.id)
        issued = await self._issue(key)
        ends_at_s = 0 if grace_s <= 0 else int(now_s + grace_s)
        for standing in before:
            if standing.is_open(now_s):
                self._end(_ROTATED, standing.secret.digest.hex(), ends_at_s)
                self.table.take_end(standing.secret.digest, ends_at_s)
        await self._store()
        return issued

    async def revoke(self, name: str) -> VirtualKey:
        """Close a key for good, at once here and soon everywhere.

        Requests that run go on.  One that is revoked already stays so.

        Args:
            name: its id, or its name.

        Raises:
            NoSuchKeyError: there is none, or several have the name.
            KeysNotKeptError: it is closed here, and on nodes that could be told,
                but may be open again after a restart.

        Cancellation: it is closed; it may not be stored.
        """
        key = self._one(name)
        self._revoke(key)
        await self._store()
        return key

    def _revoke(self, key: VirtualKey) -> None:
        at_s = int(self.wall_s())
        self._take_revoked(key.id, at_s)
        self._replicating()
        self._end(_REVOKED, key.id, at_s)

    async def _issue(self, key: VirtualKey) -> Issued:
        text = make_secret(system_random.token_bytes(SECRET_BYTES))
        secret = KeySecret(
            digest=digest_of(text),
            key=key.id,
            shown=shown(text),
            created_at_s=int(self.wall_s()),
        )
        self._replicating()
        self._secrets.put(secret.digest.hex(), secret_record(secret))
        self.table.take_secret(secret)
        try:
            is_stored = await self._store()
        except KeysNotKeptError:
            # Nobody will know it: it must not lie about, open, either.
            self.table.take_end(secret.digest, 0)
            raise
        return Issued(key, Secret(text), is_stored)

    def _one(self, name: str) -> VirtualKey:
        found = self.table.named(name)
        if len(found) > 1:
            now_s = self.wall_s()
            found = tuple(k for k in found if not self.table.is_over(k.id, now_s))
        if len(found) != 1:
            raise NoSuchKeyError(name, found)
        return found[0]

    # --- what they may use ----------------------------------------------------------

    def _take_key(self, key: VirtualKey, *, is_new: bool) -> None:
        if self.table.keys.get(key.id) == key:
            return
        self.table.take_key(key)
        if self._gates is not None and self.table.revoked_at_s(key.id) is None:
            self._gates.keep(key, is_new=is_new)

    def _take_revoked(self, key: str, at_s: int) -> None:
        self.table.take_revoked(key, at_s)
        if self._gates is not None:
            self._gates.end(key)

    # --- where they are kept --------------------------------------------------------

    def _end(self, how: str, what: str, at_s: int) -> None:
        self._ends.write(lambda ends: ends.add((how, what, at_s)))

    def _replicating(self) -> None:
        try:
            self._replicator.running()
        except NotReplicatingError as error:
            raise KeysNotKeptError(str(error)) from error

    async def _store(self) -> bool:
        """Wait until what was written is on the disk; return whether there is one."""
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

    # --- what is heard --------------------------------------------------------------

    async def run(self) -> None:
        """Keep the table true, over the lives of the replicator."""
        while True:
            server = self._replicator.server
            if server is None:
                await trio.sleep(_BACK_S)
                continue
            down = monitor(server.pid)
            for handle in (self._keys, self._secrets, self._ends):
                handle.subscribe()
            self._merge()
            while True:
                told = await receive()
                match told:
                    case Changed():
                        self._heard(told.name, told.key, told.new)
                    case Missed():
                        self._merge()
                    case Down(ref=ref) if ref == down:
                        break

    def _merge(self) -> None:
        """Hear all that is there, and put what is not."""
        for key, record in self._keys.items():
            self._heard(_KEYS, key, record)
        for digest, record in self._secrets.items():
            self._heard(_SECRETS, digest, record)
        for element in self._ends.read().value:
            self._heard(_ENDS, element, None)
        self._put_again()

    def _put_again(self) -> None:
        table = self.table
        for id_, key in table.keys.items():
            if id_ not in self._keys:
                self._keys.put(id_, terms_record(key))
        for secret in table.secrets():
            if secret.digest.hex() not in self._secrets:
                self._secrets.put(secret.digest.hex(), secret_record(secret))
        there = self._ends.read()
        ended = [(_REVOKED, id_, at_s) for id_, at_s in table.revoked.items()]
        ended += [(_ROTATED, d.hex(), at_s) for d, at_s in table.ends.items()]
        for how, what, at_s in ended:
            if (how, what, at_s) not in there:
                self._end(how, what, at_s)

    def _heard(self, name: str, key: Any, new: Any) -> None:  # noqa: ANN401 - anything
        if new is ABSENT:
            return  # nothing is ever taken back
        try:
            if name == _KEYS:
                self._heard_key(key, new)
            elif name == _SECRETS:
                self.table.take_secret(secret_of(key, new))
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
            key = key_of(id_, record)
            since_s = key.created_at_s - self._began_at_s
            self._take_key(key, is_new=since_s > _SKEW_S)
        except KeyRecordError:
            self.table.close_key(str(id_))
            raise

    def _heard_end(self, element: object) -> None:
        match element:
            case (str(how), str(what), int(at_s)) if how == _REVOKED:
                self._take_revoked(what, at_s)
            case (str(how), str(what), int(at_s)) if how == _ROTATED:
                self.table.take_end(_digest(what), at_s)
            case _:
                raise KeyRecordError("it is no end of a key")


def _digest(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise KeyRecordError("it is no digest") from error
