"""The tables ``[[deployment]]`` to :class:`Deployment` values.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr_infer.config.budgets import read_budgets
from atomr_infer.config.credentials import (
    SHOWN_FIX,
    read_credential,
    read_credentials,
)
from atomr_infer.config.fallbacks import read_fallbacks
from atomr_infer.config.hot_swap import read_hot_swap
from atomr_infer.config.mistakes import Mistakes
from atomr_infer.config.placement import read_placement
from atomr_infer.config.prices import read_price
from atomr_infer.config.rate_limits import read_rate_limits
from atomr_infer.config.ray import read_interpreter, read_ray
from atomr_infer.config.reader import TableReader, type_name
from atomr_infer.config.readings import ReadDeployment
from atomr_infer.errors import ConfigError
from atomr_infer.model.deployment import (
    AUTO,
    Deployment,
    Jitter,
    RetryPolicy,
    Serving,
    Timeouts,
)
from atomr_infer.model.failover import (
    BreakerPolicy,
    HedgePolicy,
    OnCapacity,
    OnCut,
    Swap,
)
from atomr_infer.model.routing import Routing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

_KEYS = tuple(field.name for field in attrs.fields(Deployment))
_REQUIRED = dict.fromkeys(("name", "runtime"), "every [[deployment]] needs it")

# What people write who know other tools.
_OTHER_WORDS = {
    "api_key": f"a key does not belong in this file; {SHOWN_FIX}",
    "key": f"a key does not belong in this file; {SHOWN_FIX}",
    "token": f"a key does not belong in this file; {SHOWN_FIX}",
    "base_url": "a runtime's own settings belong under [deployment.options]",
    "provider": "did you mean 'runtime'?",
    "engine": "did you mean 'runtime'?",
    "python": "did you mean 'interpreter'?",
    "env": "did you mean 'environment'?",
    "memory_limit": "did you mean 'memory_limit_gib'?",
    "memory_gib": "did you mean 'memory_limit_gib'?",
    "models": "did you mean 'serves'?",
    "replicas": "it belongs under [deployment.serving]",
    "max_concurrency": "it belongs under [deployment.serving]",
    "fallback": "did you mean 'fallbacks'?",
    "budgets": "write [[deployment.budget]]",
    "max_tokens": "did you mean 'default_max_tokens'?",
    "max_output_tokens": "did you mean 'default_max_tokens'?",
    "retries": "see the keys of [deployment.retry]",
    "circuit_breaker": "did you mean [deployment.breaker]?",
    "hedge_after_s": "write after_s under [deployment.hedge]",
    "timeout": "see the keys of [deployment.timeouts]",
    "rate_limit": "did you mean [deployment.rate_limits]?",
    "rpm": "write requests_per_minute under [deployment.rate_limits]",
    "tpm": "write tokens_per_minute under [deployment.rate_limits]",
    "gpus": "it belongs under [deployment.placement]",
    "num_gpus": "it belongs under [deployment.ray]",
    "region": "did you mean labels = { region = ... } under [deployment.placement]?",
}


def read_deployments(
    top: TableReader, folder: Path, mistakes: Mistakes
) -> tuple[ReadDeployment, ...]:
    """Read every ``[[deployment]]`` of a document, as far as it can be.

    Args:
        top: the whole document.
        folder: what a relative credential file is relative to.
        mistakes: where those in them are kept.

    Returns:
        As many as there are tables, in their order.

    Raises:
        ConfigError: they are no tables.
    """
    tables = top.content.get("deployment", [])
    if isinstance(tables, dict):
        raise top.fail("deployment", "write [[deployment]], with two brackets")
    if not isinstance(tables, list):
        problem = f"deployment is {type_name(tables)}; write [[deployment]] tables"
        raise top.fail("deployment", problem)
    found: list[ReadDeployment] = []
    lines: dict[str, int | None] = {}
    for index, content in enumerate(tables):
        read = ReadDeployment()
        with mistakes.kept():
            reader = _reader(top, index, content)
            read = _read(reader, folder, mistakes, taken=lines)
            name = None if read.value is None else read.value.name
            if name in lines:
                # Which one is meant by the name is not known: this one keeps its own.
                read = attrs.evolve(read, lacks=read.lacks | {"name"})
                raise reader.fail(
                    "name",
                    f"the name is used already, on line {lines[name]}; "
                    "every deployment needs its own",
                )
            if name is not None:
                lines[name] = top.origin.positions.line((*reader.where, "name"))
        found.append(read)
    return tuple(found)


def _reader(top: TableReader, index: int, content: object) -> TableReader:
    where = (*top.where, "deployment", index)
    if not isinstance(content, dict):
        problem = f"deployment holds {type_name(content)}; write [[deployment]] tables"
        raise top.origin.error(where, problem)
    name = content.get("name")
    label = f"deployment {name!r}" if isinstance(name, str) else "deployment"
    return TableReader(top.origin, where, label, content)


def read_deployment(reader: TableReader, folder: Path) -> Deployment:
    """Read one deployment.

    Args:
        reader: its table.
        folder: what the relative path of a credential's file, or of an interpreter,
            is relative to.

    Raises:
        ConfigError: there are mistakes in it.
    """
    mistakes = Mistakes()
    read = _read(reader, folder, mistakes)
    mistakes.tell()
    assert read.value is not None, "what is wrong with it was told"
    return read.value


def _read(
    reader: TableReader,
    folder: Path,
    mistakes: Mistakes,
    taken: Collection[str] = (),
) -> ReadDeployment:
    """Read one deployment, and leave out what is wrong.

    Where the name is taken, ``fallbacks`` are left out once they are read: who has the
    name already may be among them, and not the deployment itself.
    """
    with mistakes.kept():
        reader.check_keys(_KEYS, also=_OTHER_WORDS)
    for error in reader.missing_keys(_REQUIRED, _KEYS, _OTHER_WORDS):
        mistakes.keep(error)
    values: dict[str, object] = {}
    for key in [key for key in _KEYS if key in reader.content]:
        with mistakes.kept():
            read = _READS.get(key)
            value = reader.content[key] if read is None else read(reader, folder)
            reader.check_values(Deployment, {key: value})
            values[key] = value
    if "name" not in values:
        return ReadDeployment()
    if values["name"] in taken:
        values.pop("fallbacks", None)
    lacks = {key for key in (*_REQUIRED, *reader.content) if key not in values}
    if lacks:
        return _without(reader, values, lacks)
    try:
        return ReadDeployment(reader.make(Deployment, values))
    except ConfigError as error:
        mistakes.keep(error)
    return _without(reader, values, set(_KEYS))


def _without(
    reader: TableReader, values: Mapping[str, object], lacks: set[str]
) -> ReadDeployment:
    """Make a deployment without what is wrong, for what else can be said of it."""
    some = {"name": values["name"], "runtime": values.get("runtime", AUTO)}
    named = {key: values[key] for key in ("serves", "model") if key in values}
    for known, left in (
        ({**some, **values}, lacks),
        # What is left out is what the rest needs: it is not told of.
        ({**some, **named}, set(_KEYS) - {"name", "runtime", *named}),
    ):
        try:
            made = reader.make(Deployment, known)
        except ConfigError:
            continue
        return ReadDeployment(made, frozenset(left | lacks))
    return ReadDeployment()


def _serving(table: TableReader) -> Serving:
    readers = table.members(
        on_capacity_exhausted=OnCapacity, routing=Routing, swap=Swap
    )
    return table.read(Serving, readers)


def _timeouts(table: TableReader) -> Timeouts:
    return table.read(Timeouts)


def _retry(table: TableReader) -> RetryPolicy:
    readers = {
        "idempotent": lambda: table.flag("idempotent"),
        **table.members(jitter=Jitter),
    }
    return table.read(RetryPolicy, readers)


def _breaker(table: TableReader) -> BreakerPolicy:
    return table.read(BreakerPolicy)


def _hedge(table: TableReader) -> HedgePolicy:
    return table.read(HedgePolicy)


def _options(table: TableReader) -> Mapping[str, object]:
    # Only the runtime knows them; it is asked before anything starts.
    return table.content


def _environment(table: TableReader) -> Mapping[str, object]:
    for name, value in table.content.items():
        if not isinstance(value, str):
            # Not shown: people write keys here, though they should not.
            what = type_name(value)
            problem = f'{name} is {what}, not a string; write {name} = "..."'
            raise table.fail(name, problem)
    return table.content


def _within(
    key: str, read: Callable[[TableReader], object]
) -> Callable[[TableReader, Path], object]:
    """Return what reads the table of a key that is written."""

    def read_it(reader: TableReader, _: Path) -> object:
        table = reader.table(key)
        assert table is not None, "it is written"
        return read(table)

    return read_it


def _ray(reader: TableReader, folder: Path) -> object:
    table = reader.table("ray")
    assert table is not None, "it is written"
    return read_ray(table, folder)


_SUB_TABLES: Mapping[str, Callable[[TableReader], object]] = {
    "serving": _serving,
    "timeouts": _timeouts,
    "retry": _retry,
    "breaker": _breaker,
    "hedge": _hedge,
    "hot_swap": read_hot_swap,
    "placement": read_placement,
    "price": read_price,
    "rate_limits": read_rate_limits,
    "options": _options,
    "environment": _environment,
}

_READS: Mapping[str, Callable[[TableReader, Path], object]] = {
    "serves": lambda reader, _: _array(reader, "serves"),
    # What holds paths that are relative to the file's folder.
    "interpreter": read_interpreter,
    "credential": read_credential,
    "credentials": read_credentials,
    "ray": _ray,
    "fallbacks": lambda reader, _: read_fallbacks(reader),
    "budget": lambda reader, _: read_budgets(reader),
    "on_cut": lambda reader, _: reader.member("on_cut", OnCut),
    **{key: _within(key, read) for key, read in _SUB_TABLES.items()},
}


def _array(reader: TableReader, key: str) -> object:
    value = reader.content[key]
    if isinstance(value, str):
        raise reader.fail(key, f'{key} is a string, not an array; write ["{value}"]')
    if not isinstance(value, list):
        raise reader.fail(key, f"{key} is {type_name(value)}, not an array")
    return value
