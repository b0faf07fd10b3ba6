"""The operators' routes for virtual keys: make, list, change, rotate, revoke.

A secret is in one answer, that to who made it, and in no other; the log says who
asked for what, and never the secret.
"""

from __future__ import annotations

import difflib
import logging
from typing import TYPE_CHECKING, Any

import attrs
import msgspec
from quart import Response, request

from atomr_infer.gateway.admin.everywhere import ALL_NODES
from atomr_infer.gateway.admin.refused import RefusedError, json_answer
from atomr_infer.gateway.admin.shown_keys import shown_key
from atomr_infer.model.validation import InvalidValueError, not_negative
from atomr_infer.model.virtual_key import VirtualKey
from atomr_infer.policy.tenants.key_records import TERMS, changed_terms, terms_of
from atomr_infer.serving.limits.key_errors import (
    KeyOverError,
    KeyRingError,
    KeysNotKeptError,
    KeysUnheardError,
    KeyTakenError,
    NoSuchKeyError,
    NoSuchTeamError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from atomr_infer.gateway.admin.shown import Shown
    from atomr_infer.serving.limits.key_ring import Issued, KeyRing
    from atomr_infer.serving.shared import Serving

    View = Callable[..., Awaitable[Response]]

log = logging.getLogger(__name__)

_REFUSED: dict[type[KeyRingError], tuple[int, str]] = {
    NoSuchKeyError: (404, "key_not_found"),
    NoSuchTeamError: (400, "team_not_found"),
    KeyTakenError: (409, "name_taken"),
    KeyOverError: (409, "key_over"),
    KeysNotKeptError: (503, "keys_not_kept"),
    KeysUnheardError: (503, "not_ready"),
}

_NOT_STORED = (
    "this node has no state_dir under [node]: keys that no other node has are lost "
    "when it ends"
)
_NOT_TAKEN = (
    "this node's gateway does not take virtual keys: write virtual_keys = true under "
    "[gateway]"
)

DEFAULT_GRACE_S = 3600.0
"""How long an old secret opens, where nobody says."""


@attrs.frozen(kw_only=True)
class _Grace:
    grace_s: float = attrs.field(default=DEFAULT_GRACE_S, validator=not_negative)


@attrs.frozen(kw_only=True)
class _Lifetime:
    lifetime_s: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(not_negative)
    )


_LIFETIME = "lifetime_s"
_GIVEN = tuple(name for name in TERMS if name != "created_at_s")
_CHANGED = tuple(name for name in _GIVEN if name != "name")


class KeyRoutes:
    """The routes over one ring of keys."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    @property
    def _ring(self) -> KeyRing:
        return self._serving.key_ring

    def routes(self) -> Iterator[tuple[str, str, View]]:
        """Yield each route's method, path and view."""
        yield "GET", "/admin/keys", self._list
        yield "POST", "/admin/keys", self._create
        yield "PATCH", "/admin/keys/<path:name>", self._change
        yield "POST", "/admin/keys/<path:name>/rotate", self._rotate
        yield "POST", "/admin/keys/<path:name>/revoke", self._revoke

    async def _list(self) -> Response:
        ring = self._ring
        with _refusals():
            await ring.settle()
        keys = sorted(ring.table.keys.values(), key=lambda k: (k.created_at_s, k.id))
        return json_answer({"keys": [shown_key(ring, key) for key in keys]})

    async def _create(self) -> Response:
        members = await _body((*_GIVEN, _LIFETIME))
        with _refusals():
            key = self._key(members)
            issued = await self._ring.create(key)
        _tell("created", key)
        return self._issued(issued, 201, *self._in_vain(key))

    def _key(self, members: dict[str, Any]) -> VirtualKey:
        if "name" not in members:
            raise RefusedError(400, "missing_member", "name is missing")
        now_s = self._ring.wall_s()
        self._take_lifetime(members)
        return VirtualKey(
            id=self._ring.new_id(), created_at_s=int(now_s), **terms_of(members)
        )

    async def _change(self, name: str) -> Response:
        members = await _body((*_CHANGED, _LIFETIME))
        with _refusals():
            if not members:
                known = ", ".join((*_CHANGED, _LIFETIME))
                raise RefusedError(400, "missing_member", f"give one of {known}")
            self._take_lifetime(members)
            await self._ring.settle()
            terms = changed_terms(self._ring.one(name), members)
            key = await self._ring.change(name, terms)
        _tell("changed", key)
        shown = shown_key(self._ring, key)
        warnings = [*self._warnings(), *self._in_vain(key)]
        return json_answer({"key": shown, "warnings": warnings})

    def _take_lifetime(self, members: dict[str, Any]) -> None:
        """Put the time of the end in place of a lifetime from now on."""
        lifetime_s = _Lifetime(lifetime_s=members.pop(_LIFETIME, None)).lifetime_s
        if lifetime_s is None:
            return
        if "expires_at_s" in members:
            problem = "lifetime_s stands beside expires_at_s; write one of the two"
            raise RefusedError(400, "invalid_value", problem)
        members["expires_at_s"] = int(self._ring.wall_s() + lifetime_s)

    async def _rotate(self, name: str) -> Response:
        members = await _body(("grace_s",))
        with _refusals():
            grace_s = _Grace(**members).grace_s
            issued = await self._ring.rotate(name, grace_s=grace_s)
        _tell("rotated", issued.key)
        return self._issued(issued, 200)

    async def _revoke(self, name: str) -> Response:
        _refuse_for_all()
        with _refusals():
            key = await self._ring.revoke(name)
        _tell("revoked", key)
        shown = shown_key(self._ring, key)
        return json_answer({"key": shown, "warnings": self._warnings()})

    def _issued(self, issued: Issued, status: int, *more: str) -> Response:
        warnings = [*self._warnings(), *more]
        if not issued.is_stored and self._ring.is_stored:
            warnings.append(
                "the key is not stored: the node's file cannot be written any more, "
                "and its log says why"
            )
        members: Shown = {
            "key": shown_key(self._ring, issued.key),
            "secret": issued.secret.reveal(),
            "warnings": warnings,
        }
        answer = json_answer(members, status)
        answer.headers["cache-control"] = "no-store"
        return answer

    def _warnings(self) -> list[str]:
        warnings = [] if self._ring.is_stored else [_NOT_STORED]
        return warnings if self._ring.is_taken else [*warnings, _NOT_TAKEN]

    def _in_vain(self, key: VirtualKey) -> Iterator[str]:
        """Yield a warning for each of a key's models that is not served.

        It may be later, or elsewhere in the cluster: it is no error.
        """
        served = self._serving.table.names()
        for model in key.names_in_vain(served):
            near = difflib.get_close_matches(model, served, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            yield f"no model that is served here is called {model!r}{hint}"


class _refusals:  # noqa: N801 - reads as a function
    """A block in which what cannot be done becomes an answer that says so."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, KeyRingError):
            status, code = _REFUSED[type(error)]
            raise RefusedError(status, code, str(error)) from error
        if isinstance(error, InvalidValueError):
            raise RefusedError(400, "invalid_value", str(error)) from error


async def _body(known: tuple[str, ...]) -> dict[str, Any]:
    """Return the members of the request's body, which may be empty.

    Raises:
        RefusedError: it is no object, or has members that nothing reads.
    """
    _refuse_for_all()
    raw = await request.get_data()
    try:
        members = msgspec.json.decode(raw) if raw else {}
    except msgspec.DecodeError as error:
        raise RefusedError(400, "invalid_json", f"the body: {error}") from error
    if not isinstance(members, dict):
        raise RefusedError(400, "invalid_json", "the body is no JSON object")
    for name in members:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"use {', '.join(known)}"
            problem = f"unknown member {name!r}; {hint}"
            raise RefusedError(400, "unknown_member", problem)
    return members


def _refuse_for_all() -> None:
    """Refuse ``?nodes=all``: each node would make a key, and secrets would travel."""
    if request.remote_addr == ALL_NODES:
        problem = "keys are those of all nodes; ask one of them, without ?nodes=all"
        raise RefusedError(400, "one_node", problem)


def _tell(did: str, key: VirtualKey) -> None:
    who = request.remote_addr
    log.info("admin at %s %s the virtual key %s, %r", who, did, key.id, key.name)
