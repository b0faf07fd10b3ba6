"""Which secret opens what: virtual keys as a gateway looks them up.

The table holds what a node has heard, in whatever order it came: keys, secrets, and
ends.  Nothing of it is ever taken back, so nodes that have heard the same hold the
same, and what has ended stays so:

* a key that was revoked is, whatever else is said of it at the same time;
* of two times at which a secret is said to end the earlier one counts.

A secret is found by its digest, in one look at a dictionary.  That is the comparison:
how long it takes depends on the digest, and who could steer a digest could already
invert the hash.

Pure: the wall's time is an argument.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import TYPE_CHECKING

import attrs

from atomr_infer.model.asker import Asker, Visitor
from atomr_infer.model.virtual_key import KeySecret, VirtualKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from atomr_infer.model.team import Team


class End(Enum):
    """Why a secret opens nothing any more."""

    EXPIRED = "expired"
    REVOKED = "revoked"
    ROTATED = "rotated"
    NO_TEAM = "no_team"


@attrs.frozen
class Standing:
    """What a secret opens, and until when.

    Attributes:
        key: whose secret it is.
        secret: the secret, as far as it is kept.
        until_s: the wall's time from which it opens nothing; ``inf``: for ever,
            ``-inf``: it does not now, whatever a clock says.
        end: why not, from then on; None: it has no end.
        ended_at_s: when, as it is told; None: it is not known.
        visitor: who comes with it.
    """

    key: VirtualKey
    secret: KeySecret
    until_s: float
    end: End | None
    ended_at_s: int | None
    visitor: Visitor

    def is_open(self, wall_s: float) -> bool:
        """Whether it opens anything."""
        return wall_s < self.until_s


class KeyTable:
    """Keys, secrets, ends; and the standing of each secret."""

    def __init__(self, teams: Iterable[Team] = ()) -> None:
        self._teams: Mapping[str, Team] = {team.name: team for team in teams}
        self._keys: dict[str, VirtualKey] = {}
        self._secrets: dict[str, dict[bytes, KeySecret]] = {}
        self._revoked: dict[str, int] = {}
        self._ends: dict[bytes, int] = {}
        self._key_of: dict[bytes, str] = {}
        self._standings: dict[bytes, Standing] = {}

    def __len__(self) -> int:
        return len(self._keys)

    # --- what is asked ----------------------------------------------------------------

    def find(self, digest: bytes) -> Standing | None:
        """Return the standing of a secret; None: nobody has heard of it."""
        return self._standings.get(digest)

    @property
    def keys(self) -> Mapping[str, VirtualKey]:
        """All keys by id, ended ones too."""
        return self._keys

    @property
    def teams(self) -> Mapping[str, Team]:
        """All teams by name."""
        return self._teams

    def standings(self, key: str) -> tuple[Standing, ...]:
        """Return those of a key's secrets, the newest first."""
        found = [self._standings.get(each) for each in self._secrets.get(key, {})]
        known = [each for each in found if each is not None]
        return tuple(sorted(known, key=lambda s: -s.secret.created_at_s))

    def named(self, name: str) -> tuple[VirtualKey, ...]:
        """Return the keys with an id, or with a name; several may have the same."""
        if name in self._keys:
            return (self._keys[name],)
        return tuple(key for key in self._keys.values() if key.name == name)

    def called(self, owner: str) -> str:
        """Return whose limits or budgets are meant, as people call it.

        >>> KeyTable().called("team web")
        'team web'
        """
        kind, _, id_ = owner.partition(" ")
        key = self._keys.get(id_) if kind == "key" else None
        return owner if key is None else f"key {key.name!r}"

    def is_over(self, key: str, wall_s: float) -> bool:
        """Whether no secret of a key opens anything."""
        return not any(each.is_open(wall_s) for each in self.standings(key))

    def revoked_at_s(self, key: str) -> int | None:
        """Return when a key was revoked; None: it was not."""
        return self._revoked.get(key)

    def secrets(self) -> Iterable[KeySecret]:
        """Return all secrets, as far as they are kept."""
        return [each for of in self._secrets.values() for each in of.values()]

    @property
    def revoked(self) -> Mapping[str, int]:
        """When keys were revoked, by id."""
        return self._revoked

    @property
    def ends(self) -> Mapping[bytes, int]:
        """When secrets that were replaced end, by digest."""
        return self._ends

    # --- what is heard ----------------------------------------------------------------

    def take_teams(self, teams: Iterable[Team]) -> None:
        """Take the teams from now on."""
        self._teams = {team.name: team for team in teams}
        for key in self._keys:
            self._judge(key)

    def take_key(self, key: VirtualKey) -> None:
        """Take a key's terms."""
        self._keys[key.id] = key
        self._judge(key.id)

    def close_key(self, key: str) -> None:
        """Let a key whose terms cannot be read open nothing."""
        if self._keys.pop(key, None) is not None:
            for digest in self._secrets.get(key, {}):
                self._standings.pop(digest, None)

    def take_secret(self, secret: KeySecret) -> None:
        """Take a secret; its key may come later."""
        self._secrets.setdefault(secret.key, {})[secret.digest] = secret
        self._key_of[secret.digest] = secret.key
        self._judge(secret.key)

    def take_revoked(self, key: str, at_s: int) -> None:
        """Take that a key was revoked; it may come later."""
        self._revoked[key] = min(at_s, self._revoked.get(key, at_s))
        self._judge(key)

    def take_end(self, digest: bytes, at_s: int) -> None:
        """Take that a secret ends, for another one; it may come later."""
        self._ends[digest] = min(at_s, self._ends.get(digest, at_s))
        key = self._key_of.get(digest)
        if key is not None:
            self._judge(key)

    def _judge(self, key: str) -> None:
        known = self._keys.get(key)
        if known is None:
            return
        for secret in self._secrets.get(key, {}).values():
            self._standings[secret.digest] = self._standing(known, secret)

    def _standing(self, key: VirtualKey, secret: KeySecret) -> Standing:
        until_s, end, at_s = self._end(key, secret)
        team = None if key.team is None else self._teams.get(key.team)
        team_weight = 1.0 if team is None else team.weight
        return Standing(
            key=key,
            secret=secret,
            until_s=until_s,
            end=end,
            ended_at_s=at_s,
            visitor=Visitor(
                owner=b"virtual " + key.id.encode(),
                key=key,
                asker=Asker(key.id, key.team, key.weight, team_weight),
            ),
        )

    def _end(
        self, key: VirtualKey, secret: KeySecret
    ) -> tuple[float, End | None, int | None]:
        revoked_at_s = self._revoked.get(key.id)
        if revoked_at_s is not None:
            # At once, and not at a time: of two nodes one has the slower clock.
            return -math.inf, End.REVOKED, revoked_at_s
        if key.team is not None and key.team not in self._teams:
            # Its limits and budgets are not known: better closed than without them.
            return -math.inf, End.NO_TEAM, None
        ends = [
            (at_s, why)
            for at_s, why in (
                (key.expires_at_s, End.EXPIRED),
                (self._ends.get(secret.digest), End.ROTATED),
            )
            if at_s is not None
        ]
        if not ends:
            return math.inf, None, None
        at_s, why = min(ends, key=lambda each: each[0])
        return float(at_s), why, at_s or None
