"""What operators cannot do to virtual keys, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr.errors import AtomrError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atomr_infer.model.virtual_key import VirtualKey


class KeyRingError(AtomrError):
    """A virtual key could not be made or changed."""


class KeyTakenError(KeyRingError):
    """A key that is not over has that name."""

    def __init__(self, key: VirtualKey) -> None:
        self.key = key
        super().__init__(
            f"there is a key {key.name!r} already, {key.id}; rotate it for another "
            "secret, or choose another name"
        )


class NoSuchKeyError(KeyRingError):
    """No key, or more than one, is called so."""

    def __init__(self, name: str, found: Iterable[VirtualKey]) -> None:
        ids = ", ".join(sorted(key.id for key in found))
        if ids:
            super().__init__(f"several keys are called {name!r}; name one by id: {ids}")
        else:
            super().__init__(f"there is no virtual key {name!r}")


class KeyOverError(KeyRingError):
    """The key is revoked or has expired."""

    def __init__(self, key: VirtualKey) -> None:
        super().__init__(
            f"{key.name!r}, {key.id}, is over; create another one in its place"
        )


class NoSuchTeamError(KeyRingError):
    """A key's team is not configured."""

    def __init__(self, team: str, known: Iterable[str]) -> None:
        names = ", ".join(sorted(known)) or "none"
        super().__init__(
            f"there is no team {team!r}; there are: {names}; teams are tables "
            "[[team]] of the configuration"
        )


class KeysNotKeptError(KeyRingError):
    """The node's values cannot be written or stored now."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"keys cannot be kept now: {problem}")


class KeysUnheardError(KeyRingError):
    """The node has just started, and others have not told it all keys yet."""

    def __init__(self, nodes: Iterable[str]) -> None:
        names = ", ".join(sorted(nodes)) or "the other nodes"
        super().__init__(
            f"this node has just started, and {names} may not have told it all keys "
            "yet; try again in a second"
        )
