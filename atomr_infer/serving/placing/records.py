"""What nodes tell each other of deployments: the entries of replicated maps.

===============  ============  =========================================
map              written by    holds
===============  ============  =========================================
``deployments``  anyone        an :class:`Entry` for each deployment
``nodes``        each its own  what the node is: :class:`Facts`
``placements``   each its own  a :class:`Claim` for each deployment that
                               the node runs, starts, ends, or cannot run
``declared``     each its own  the digest of each deployment that stands
                               in the node's file
===============  ============  =========================================

Other nodes may be of another version: members that are not known here are left out,
and a value that makes no sense is no value.

Pure.
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from atomr_infer.policy.lifecycle.deployment_state import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

log = logging.getLogger(__name__)

DEPLOYMENTS: Final = "deployments"
NODES: Final = "nodes"
PLACEMENTS: Final = "placements"
DECLARED: Final = "declared"

HERE: Final = "here"
"""The only key of ``nodes``: each owner has one value there."""

_KEPT_REVISIONS = 16

T = TypeVar("T", bound=msgspec.Struct)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment in the catalogue.

    Attributes:
        table: the deployment, as a configuration would hold it.
        digest: of ``table``; equal for what is the same.
        revision: 1, and one more with each change.
        before: digests of the revisions before it, the latest first.
        remote: whether its runtime asks a provider over the network.
        by: the node on which it was written.
        at_start: whether that node read it in its file when it started: the file may
            be an old one, and nobody may have meant to change anything.
    """

    table: dict[str, Any]
    digest: str
    revision: int
    before: tuple[str, ...] = ()
    remote: bool = False
    by: str = ""
    at_start: bool = False


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a node is.

    Attributes:
        roles: what it is there for.
        labels: what it says of itself.
        gpus_gib: the memory of each of its GPUs.
        gpus: their names.
        gpus_note: where that is from, or why there are none.
        runtimes: the runtimes that are installed.
        leaving: whether it is about to go.
    """

    roles: tuple[str, ...]
    labels: dict[str, str] = {}
    gpus_gib: tuple[float, ...] = ()
    gpus: tuple[str, ...] = ()
    gpus_note: str = ""
    runtimes: tuple[str, ...] = ()
    leaving: bool = False


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A node's share of a deployment.

    Attributes:
        state: of the share.
        gpus: the GPUs of each replica, by their number on the node; empty for one
            that needs none.
        serving: replicas whose engine runs.
        digest: of the entry that it is about.
        reason: why it does not serve.
    """

    state: State
    gpus: tuple[tuple[int, ...], ...] = ()
    serving: int = 0
    digest: str = ""
    reason: str = ""


def to_plain(record: msgspec.Struct) -> Any:  # noqa: ANN401 - what maps carry
    """Return a record as a map can carry it; what is as by default is left out."""
    defaults = {
        field.name: field.default
        for field in msgspec.structs.fields(record)
        if field.default is not msgspec.NODEFAULT
    }
    plain: dict[str, Any] = msgspec.to_builtins(record)
    return {
        name: value
        for name, value in plain.items()
        if name not in defaults or getattr(record, name) != defaults[name]
    }


def from_plain(kind: type[T], value: object, *, of: str) -> T | None:
    """Return the record that a node put; None: it makes no sense here.

    Args:
        kind: of the record.
        value: what was put.
        of: what it is about, for the log.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        log.warning("what a node says of %s is not understood: %s", of, error)
        return None


def digest_of(table: Mapping[str, object]) -> str:
    """Return a short digest; equal for equal tables, whatever their order.

    >>> digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    True
    """
    encoded = msgspec.json.encode(table, order="deterministic")
    return hashlib.sha256(encoded).hexdigest()[:16]


def revised(
    now: Entry | None,
    table: dict[str, Any],
    *,
    remote: bool,
    by: str,
    at_start: bool = False,
) -> Entry | None:
    """Return the entry that replaces ``now``; None: it says the same already.

    Args:
        now: what the catalogue has; None: nothing of that name.
        table: what shall be served.
        remote: whether its runtime asks a provider.
        by: the node that writes it.
        at_start: whether that node has just started, with a file that says it.
    """
    digest = digest_of(table)
    if now is not None and now.digest == digest:
        return None
    before: tuple[str, ...] = ()
    if now is not None:
        before = (now.digest, *(old for old in now.before if old != digest))
    return Entry(
        table=table,
        digest=digest,
        revision=1 if now is None else now.revision + 1,
        before=before[:_KEPT_REVISIONS],
        remote=remote,
        by=by,
        at_start=at_start,
    )


def is_outdated(now: Entry | None, digest: str) -> bool:
    """Whether the catalogue has gone on from what a file says.

    A node that starts with the file of last week must not undo what was changed
    since then; nor is there a clock that all nodes share, to say which is newer.
    """
    return now is not None and now.digest != digest and digest in now.before


def still_rivals(put: Iterable[Entry]) -> list[Entry]:
    """Return what counts of entries that were put at once, but for old files.

    A node that starts behind a cut, with the file of last week, knows of nothing that
    it could be older than: its entry is the latest, with the fewest revisions.  One
    that was removed and deployed anew looks the same, and is meant: only what was put
    at a start can be an old file.

    Args:
        put: entries of one name whose nodes could not hear each other.

    Returns:
        Those of them that may count: one at least, where there is any.
    """
    entries = tuple(put)
    return [
        entry
        for entry in entries
        if not entry.at_start
        or not any(
            other.revision > entry.revision and is_outdated(other, entry.digest)
            for other in entries
        )
    ]
