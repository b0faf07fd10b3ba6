"""The virtual keys that this node knows, which are those of all nodes.

They are kept in the node's replicated values (:mod:`.key_facts`), as facts of which
nothing is ever taken back.

A request is looked up in a dictionary, and waits for nothing.  The ring's process
keeps that dictionary true, some milliseconds behind what others write; what is
written here is in it at once.
"""

from __future__ import annotations

import logging
import secrets as system_random
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import attrs
import trio

from atomr_infer.model.key_secret import (
    SECRET_BYTES,
    digest_of,
    make_secret,
    shown,
)
from atomr_infer.model.secret import Secret
from atomr_infer.model.virtual_key import KeySecret, VirtualKey
from atomr_infer.policy.tenants.key_table import KeyTable
from atomr_infer.serving.limits.key_errors import (
    KeyOverError,
    KeysNotKeptError,
    KeysUnheardError,
    KeyTakenError,
    NoSuchKeyError,
    NoSuchTeamError,
)
from atomr_infer.serving.limits.key_facts import KeyFacts
from atomr_infer.serving.limits.key_hearing import KeyHearing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from atomr.cluster.replicator import Replicator
    from atomr_infer.model.team import Team
    from atomr_infer.serving.limits.key_gates import KeyGates

log = logging.getLogger(__name__)

_PATIENCE_S = 6.0
"""So long a command waits for a node that has just started: longer than it waits for
others who are not there, and shorter than who asks for an answer."""

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
        facts: where keys are kept.
    """

    def __init__(
        self,
        replicator: Replicator,
        gates: KeyGates | None = None,
        *,
        others: Callable[[], Collection[str]] | None = None,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        """Make an empty ring.

        Args:
            replicator: where keys are kept.
            gates: what keys may use; None: nobody keeps it.
            others: returns the names of the other nodes that should always be there;
                None: no other node may know keys that this one does not.
            wall_s: the wall's clock.
        """
        self.table = KeyTable()
        self._gates = gates
        self._began_at_s = wall_s()
        self._hearing = KeyHearing(replicator, others)
        self._has_others = others is not None
        self._same_names: set[frozenset[str]] = set()
        self.find = self.table.find
        self.wall_s = wall_s
        self.is_taken = False
        self.facts = KeyFacts(replicator, self)

    def __repr__(self) -> str:
        return f"<KeyRing: {len(self.table)}>"

    @property
    def is_stored(self) -> bool:
        """Whether keys outlive the node's processes, as far as is configured."""
        return self.facts.is_stored

    @property
    def is_newcomer(self) -> bool:
        """Whether other nodes may not have told it all keys yet."""
        return not self._hearing.is_over

    def take_teams(self, teams: Iterable[Team]) -> None:
        """Take the teams that keys may name, from now on."""
        teams = tuple(teams)
        self.table.take_teams(teams)
        if self._gates is not None:
            self._gates.take_teams(teams)

    # --- what operators do --------------------------------------------------------

    async def settle(self) -> None:
        """Wait until a node that has just started has heard of all keys.

        Raises:
            KeysUnheardError: that takes more than some seconds.
        """
        if not self._has_others or self.facts.heard.is_set():
            await trio.lowlevel.checkpoint()
            return
        with trio.move_on_after(_PATIENCE_S):
            await self.facts.heard.wait()
            return
        raise KeysUnheardError(self._hearing.unheard)

    def new_id(self) -> str:
        """Return the id for a new key."""
        return VirtualKey.make_id(system_random.token_bytes(8))

    async def create(self, key: VirtualKey) -> Issued:
        """Make a key, which opens at once here, and soon everywhere.

        Two nodes may give a name at the same moment, or while they are cut off from
        each other: then both keys open, and each node says so in its log.

        Raises:
            KeyTakenError: a key that is not over has its name.
            KeysUnheardError: as for :meth:`settle`.
            NoSuchTeamError: its team is not configured here.
            KeysNotKeptError: it cannot be kept; it was revoked again.

        Cancellation: the key may be there, and nobody knows its secret.
        """
        await self.settle()
        for other in self.table.named(key.name):
            if not self.table.is_over(other.id, self.wall_s()):
                raise KeyTakenError(other)
        self._check_team(key)
        self.facts.check()
        self.facts.say_key(key)
        self._take_key(key, is_new=True)
        try:
            return await self._issue(key)
        except KeysNotKeptError:
            with suppress(KeysNotKeptError):  # nobody heard of it; else they hear this
                self._revoke(key)
            raise

    async def rotate(self, name: str, *, grace_s: float) -> Issued:
        """Give a key another secret, and end those that it has.

        Args:
            name: its id, or its name.
            grace_s: how long the present secrets still open; 0: not at all.

        Raises:
            NoSuchKeyError: there is none, or several have the name.
            KeyOverError: it is revoked or has expired.
            KeysUnheardError: as for :meth:`settle`.
            KeysNotKeptError: the new secret cannot be kept; the key is as before.

        Cancellation: as for :meth:`create`; the present secrets may stay.
        """
        await self.settle()
        key = self.one(name)
        now_s = self.wall_s()
        if self.table.is_over(key.id, now_s):
            raise KeyOverError(key)
        before = self.table.standings(key.id)
        issued = await self._issue(key)
        ends_at_s = 0 if grace_s <= 0 else int(now_s + grace_s)
        for standing in before:
            if standing.is_open(now_s):
                self.table.take_end(standing.secret.digest, ends_at_s)
                self.facts.say_rotated(standing.secret.digest, ends_at_s)
        await self.facts.store()
        return issued

    async def change(self, name: str, terms: Mapping[str, Any]) -> VirtualKey:
        """Give a key other terms, at once here and soon everywhere.

        Of two that are given it on two nodes at the same time the last one counts.

        Args:
            name: its id, or its name.
            terms: members of :class:`VirtualKey`, but for its id, name and age.

        Raises:
            NoSuchKeyError: there is none, or several have the name.
            KeyOverError: it is revoked; one that has expired may be given more time.
            NoSuchTeamError: its team is not configured here.
            KeysUnheardError: as for :meth:`settle`.
            KeysNotKeptError: its terms cannot be kept; they may be known already.
            InvalidValueError: one of the terms is none; nothing was changed.

        Cancellation: it is changed; it may not be stored.
        """
        await self.settle()
        key = self.one(name)
        if self.table.revoked_at_s(key.id) is not None:
            raise KeyOverError(key)
        changed = attrs.evolve(key, **terms)
        self._check_team(changed)
        self.facts.check()
        self.facts.say_key(changed)
        self._take_key(changed, is_new=False)
        await self.facts.store()
        return changed

    async def revoke(self, name: str) -> VirtualKey:
        """Close a key for good, at once here and soon everywhere.

        Requests that run go on.  One that is revoked already stays so.

        Args:
            name: its id, or its name.

        Raises:
            NoSuchKeyError: there is none, or several have the name.
            KeysUnheardError: as for :meth:`settle`; one that is known here is revoked
                at once by its id.
            KeysNotKeptError: it is closed here, and on nodes that could be told,
                but may be open again after a restart.

        Cancellation: it is closed; it may not be stored.
        """
        if name not in self.table.keys:
            await self.settle()
        key = self.one(name)
        self._revoke(key)
        await self.facts.store()
        return key

    def _revoke(self, key: VirtualKey) -> None:
        at_s = int(self.wall_s())
        self.hear_revoked(key.id, at_s)
        self.facts.check()
        self.facts.say_revoked(key.id, at_s)

    async def _issue(self, key: VirtualKey) -> Issued:
        text = make_secret(system_random.token_bytes(SECRET_BYTES))
        secret = KeySecret(
            digest=digest_of(text),
            key=key.id,
            shown=shown(text),
            created_at_s=int(self.wall_s()),
        )
        self.facts.check()
        self.facts.say_secret(secret)
        self.table.take_secret(secret)
        try:
            is_stored = await self.facts.store()
        except KeysNotKeptError:
            # Nobody will know it: it must not lie about, open, either.
            self.table.take_end(secret.digest, 0)
            with suppress(KeysNotKeptError):
                self.facts.check()
                self.facts.say_rotated(secret.digest, 0)
            raise
        return Issued(key, Secret(text), is_stored)

    def _check_team(self, key: VirtualKey) -> None:
        if key.team is not None and key.team not in self.table.teams:
            raise NoSuchTeamError(key.team, self.table.teams)

    def one(self, name: str) -> VirtualKey:
        """Return the key of that id, or name; of several the one that is not over.

        Raises:
            NoSuchKeyError: there is none, or several have the name.
        """
        found = self.table.named(name)
        if len(found) > 1:
            now_s = self.wall_s()
            found = tuple(k for k in found if not self.table.is_over(k.id, now_s))
        if len(found) != 1:
            raise NoSuchKeyError(name, found)
        return found[0]

    # --- what is heard --------------------------------------------------------------

    async def run(self) -> None:
        """Keep the table true."""
        self._hearing.begin()
        await self.facts.run()

    def hear_key(self, key: VirtualKey) -> None:
        """Take a key's terms from another node, or from before."""
        since_s = key.created_at_s - self._began_at_s
        self._take_key(key, is_new=since_s > _SKEW_S)

    def hear_secret(self, secret: KeySecret) -> None:
        """Take a secret from another node, or from before."""
        self.table.take_secret(secret)
        key = self.table.keys.get(secret.key)
        if key is not None:
            self._tell_same_name(key)

    def _tell_same_name(self, key: VirtualKey) -> None:
        """Log, once, that a key has the name of another one that opens."""
        now_s = self.wall_s()
        if self.table.is_over(key.id, now_s):
            return
        for other in self.table.named(key.name):
            pair = frozenset((key.id, other.id))
            if len(pair) > 1 and pair not in self._same_names:
                if self.table.is_over(other.id, now_s):
                    continue
                self._same_names.add(pair)
                log.warning(
                    "two virtual keys that open are called %r, as two nodes made them "
                    "at once: %s; name them by id, or revoke one",
                    key.name,
                    " and ".join(sorted(pair)),
                )

    def hear_revoked(self, key: str, at_s: int) -> None:
        """Take that a key was revoked."""
        self.table.take_revoked(key, at_s)
        if self._gates is not None:
            self._gates.end(key)

    def holds(self, secret: KeySecret) -> bool:
        """Whether a secret from elsewhere may have ended without a word of it yet."""
        return self.is_newcomer and secret.created_at_s <= self._began_at_s

    def _take_key(self, key: VirtualKey, *, is_new: bool) -> None:
        before = self.table.keys.get(key.id)
        if before == key:
            return
        if before is not None and before.rate_limits is None:
            is_new = True  # nothing was counted before
        self.table.take_key(key)
        if self._gates is not None and self.table.revoked_at_s(key.id) is None:
            self._gates.keep(key, is_new=is_new)
