"""What differs between two configurations, as people read it; secrets never.

Where a key is found is shown, a key is not, and neither is what stands in a runtime's
``headers``: people put keys there.

Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

import attrs

from atomr_infer.model.prices import Price, Rate, Rates
from atomr_infer.model.secret import (
    EnvSecret,
    FileSecret,
    HeaderSecret,
    PluginSecret,
    Secret,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atomr_infer.model.deployment import Deployment

NOTHING = "nothing"
"""What a field says that is left out."""

_HIDDEN = "(not shown)"

# The file has rates in their table itself, and says nothing of where they are from.
_UNNAMED = Rates
_UNWRITTEN = ((Price, "source"),)

# Of a runtime's own options nobody here knows what they hold.
_TELLING = ("header", "key", "token", "secret", "password", "auth")


class Kind(Enum):
    """What has become of something."""

    ADDED = "+"
    REMOVED = "-"
    CHANGED = "~"


@attrs.frozen
class Field:
    """One field that says something else now.

    Attributes:
        name: with the tables that it stands in: ``serving.replicas``.
        before: what it said, as people read it.
        after: what it says.
    """

    name: str
    before: str
    after: str


@attrs.frozen
class Difference:
    """One table that differs.

    Attributes:
        kind: what has become of it.
        what: ``deployment 'gpt'``, ``[gateway]``.
        fields: of one that is changed.
        later: whether it takes effect with a restart.
    """

    kind: Kind
    what: str
    fields: tuple[Field, ...] = ()
    later: bool = False

    @property
    def line(self) -> str:
        """The difference in one line.

        >>> Difference(Kind.ADDED, "deployment 'gpt'").line
        "+ deployment 'gpt'"
        """
        told = ", ".join(f"{f.name}: {f.before} -> {f.after}" for f in self.fields)
        behind = " (with a restart)" if self.later else ""
        return f"{self.kind.value} {self.what}{': ' if told else ''}{told}{behind}"


def deployment_differences(
    now: Iterable[Deployment], wanted: Iterable[Deployment]
) -> tuple[Difference, ...]:
    """Compare what is served with what is to be: changes, what comes, what goes.

    >>> from atomr_infer.model.deployment import Deployment
    >>> old = Deployment(name="gpt", runtime="openai")
    >>> new = attrs.evolve(old, options={"endpoint": "http://a"})
    >>> deployment_differences([old], [new])[0].fields
    (Field(name='options.endpoint', before='nothing', after='"http://a"'),)
    """
    runs = {deployment.name: deployment for deployment in now}
    says = {deployment.name: deployment for deployment in wanted}
    found = [
        Difference(Kind.CHANGED, _named(name), fields)
        for name, after in says.items()
        if name in runs and (fields := changed_fields(runs[name], after))
    ]
    added = [d for d in says.values() if d.name not in runs]
    found += [Difference(Kind.ADDED, f"{_named(d.name)} ({d.runtime})") for d in added]
    found += [Difference(Kind.REMOVED, _named(name)) for name in runs.keys() - says]
    return tuple(found)


def table_differences(
    table: str, now: Mapping[str, object], wanted: Mapping[str, object]
) -> tuple[Difference, ...]:
    """Compare tables that are told apart by a name: changes, what comes, what goes.

    Args:
        table: as it is written: ``[[team]]``.
        now: what runs, by name.
        wanted: what is to be.

    >>> table_differences("[[team]]", {}, {"web": object()})[0].line
    "+ [[team]] 'web'"
    """
    found = [
        Difference(Kind.CHANGED, f"{table} {name!r}", fields)
        for name, after in wanted.items()
        if name in now and (fields := changed_fields(now[name], after))
    ]
    for kind, one, other in ((Kind.ADDED, wanted, now), (Kind.REMOVED, now, wanted)):
        gone = [name for name in one if name not in other]
        found += [Difference(kind, f"{table} {name!r}") for name in gone]
    return tuple(found)


def said(value: object) -> dict[str, str]:
    """Return the fields of a value that are given, as people read them.

    >>> from atomr_infer.model.team import Team
    >>> said(Team(name="web", weight=2.0))
    {'name': '"web"', 'weight': '2.0'}
    """
    return {name: each.shown for name, each in _flat(value).items()}


def changed_fields(
    before: object, after: object, *, only: Iterable[str] | None = None
) -> tuple[Field, ...]:
    """Return the fields in which two values of one class differ.

    Args:
        before: an attrs value, or a mapping.
        after: another one.
        only: names of its own fields; None: all.
    """
    if before == after:
        return ()
    old, new = _flat(before), _flat(after)
    wanted = None if only is None else set(only)
    return tuple(
        Field(name, old.get(name, _Said()).shown, new.get(name, _Said()).shown)
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
        and (wanted is None or name.partition(".")[0] in wanted)
    )


def _named(deployment: str) -> str:
    return f"deployment {deployment!r}"


@attrs.frozen
class _Said:
    """What a field says: the value, and how it is shown."""

    value: object = None
    shown: str = NOTHING


def _flat(value: object) -> dict[str, _Said]:
    found: dict[str, _Said] = {}
    _collect(value, "", found)
    return found


def _collect(value: object, name: str, found: dict[str, _Said]) -> None:
    source = _source(value)
    if source is not None:
        found[name] = _Said(value, source)
    elif isinstance(value, Rate):
        found[name] = _Said(value, f"{value.usd_per_million:f}")
    elif attrs.has(cls := type(value)):
        for field in attrs.fields(cls):
            if field.init and (cls, field.name) not in _UNWRITTEN:
                inner = getattr(value, field.name)
                key = "" if isinstance(inner, _UNNAMED) else field.name
                _collect(inner, _inside(name, key), found)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            _collect(inner, _inside(name, str(key)), found)
    elif value is not None and value not in ((), [], frozenset()):
        found[name] = _Said(_comparable(value), _shown(value, name))


def _inside(name: str, key: str) -> str:
    return ".".join(filter(None, (name, key)))


def _source(value: object) -> str | None:
    """Return where a secret is found; None: it is none."""
    match value:
        case EnvSecret(variable):
            return f"env {variable}"
        case FileSecret(path):
            return f"file {path}"
        case HeaderSecret(header):
            return f"header {header}"
        case PluginSecret(provider, _):
            return f"provider {provider}"
        case Secret():
            return "a key"
        case _:
            return None


def _comparable(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _shown(value: object, name: str) -> str:
    if _hides(name):
        return _HIDDEN
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, (tuple, list, frozenset)):
        inner = sorted(value, key=str) if isinstance(value, frozenset) else value
        return f"[{', '.join(_element(each, name) for each in inner)}]"
    if isinstance(value, bool | int | float | str):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _element(value: Any, name: str) -> str:  # noqa: ANN401 - of any field
    source = _source(value)
    if source is not None:
        return source
    if attrs.has(type(value)):
        said = _flat(value)
        inner = ", ".join(f"{key} = {each.shown}" for key, each in said.items())
        return f"{{{inner}}}"
    return _shown(value, name)


def _hides(name: str) -> bool:
    """Whether a field may hold a key, by what it is called."""
    top, _, rest = name.partition(".")
    return top == "options" and any(word in rest.lower() for word in _TELLING)
