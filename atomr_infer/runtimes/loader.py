"""Finding runtime plugins by entry point, and checking them before use.

Listing reads metadata only: no plugin module is imported until a deployment
names its runtime, because a plugin may belong to a distribution that is slow
to import or broken on this machine.  Loading imports exactly one plugin and
holds it against :class:`~atomr_infer.runtimes.contract.RuntimePlugin` at once,
so that a wrong plugin is refused with its name, not met later as an
``AttributeError`` in the middle of a request.

Two distributions that register the same name are refused, never ranked: which
of them would run is not a thing to leave to the order of ``sys.path``.

Every function takes ``installed``, the source of distributions, so that a test
or an embedding program can pass its own.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from importlib.metadata import Distribution, EntryPoint, distributions
from typing import Protocol, runtime_checkable

import attrs

from atomr_infer.errors import PluginError
from atomr_infer.runtimes.contract import (
    ENTRY_POINT_GROUP,
    Host,
    Parametric,
    RuntimePlugin,
)

DISTRIBUTION_NAME = "atomr-infer"

Installed = Callable[[], Iterable[Distribution]]
"""Answers which distributions are installed, the one that wins first."""

_METHODS = (
    "missing",
    "validate",
    "open_runner",
    "environment_deployments",
    "demo_deployment",
)


@runtime_checkable
class InstalledApart(Protocol):
    """A runtime plugin whose packages belong into an environment of their own."""

    def install_apart(self) -> str:
        """Return the command that makes it, and what a deployment then says of it."""
        ...


class UnknownRuntimeError(PluginError):
    """No runtime is called so.

    Attributes:
        near: the one that was probably meant; None: none is called alike.
    """

    near: str | None = None


@attrs.frozen
class RuntimeEntry:
    """A runtime that is registered; its plugin may still fail to import.

    Attributes:
        name: what a deployment writes in ``runtime``.
        value: where the plugin is, ``"module:attribute"``.
        distribution: the distribution that registered it.
    """

    name: str
    value: str
    distribution: str


def list_runtimes(installed: Installed = distributions) -> tuple[RuntimeEntry, ...]:
    """Return every registered runtime by name, without importing any.

    Raises:
        PluginError: two distributions register the same name, or one
            registers something that is not ``module:attribute``.
    """
    return tuple(found for found, _ in registered(installed))


def load_runtime(name: str, installed: Installed = distributions) -> RuntimePlugin:
    """Import the plugin called ``name`` and check it against the contract.

    Args:
        name: as a deployment writes it; what is behind a colon is for the plugin,
            if it takes such a thing (``Parametric``).
        installed: where plugins are looked for.

    Raises:
        PluginError: no such runtime is registered (with the nearest name, or
            the install command), its module fails to import (the cause is
            chained), what it names is not a runtime plugin, or the plugin takes
            nothing behind its name.
    """
    entry, point = _fetch(plugin_name(name), installed)
    try:
        plugin = point.load()
    except Exception as error:
        # The import runs foreign code, which may raise anything at all.
        raise PluginError(
            f"runtime {name!r} ({entry.value}, from {entry.distribution}) cannot be "
            f"imported: {type(error).__name__}: {error}"
        ) from error
    found = check_shape(plugin, entry)
    if name != entry.name and not isinstance(found, Parametric):
        raise PluginError(
            f"runtime {name!r}: {entry.name!r} takes nothing behind its name"
        )
    return found


def plugin_name(runtime: str) -> str:
    """Return the plugin of what a deployment writes in ``runtime``.

    >>> plugin_name("python:my_model:answer")
    'python'
    """
    return runtime.partition(":")[0]


def plugin_ref(name: str, installed: Installed = distributions) -> str:
    """Return ``"module:attribute"`` of a registered runtime, without importing it.

    Raises:
        PluginError: no such runtime is registered.
    """
    return _fetch(plugin_name(name), installed)[0].value


def ensure_available(
    plugin: RuntimePlugin, installed: Installed = distributions
) -> None:
    """Refuse a plugin whose packages are not installed.

    Raises:
        PluginError: names the packages and the command that installs them.
    """
    missing = plugin.missing()
    if not missing:
        return
    if isinstance(plugin, InstalledApart):
        command = plugin.install_apart()
    elif _normal(plugin.name) in _extras(installed):
        command = _install_command(plugin.name)
    else:
        command = "pip install " + " ".join(missing)
    plural = "s" if len(missing) > 1 else ""
    raise PluginError(
        f"runtime {plugin.name!r} needs the package{plural} {', '.join(missing)}; "
        f"run: {command}"
    )


def check_shape(plugin: object, entry: RuntimeEntry) -> RuntimePlugin:
    """Return ``plugin`` as what it is, when it is a runtime plugin.

    Raises:
        PluginError: names the plugin and everything that is wrong with it.
    """
    problems = list(_shape_problems(plugin, entry.name))
    # isinstance narrows the type; with no problem found it can only be true.
    if not problems and isinstance(plugin, RuntimePlugin):
        return plugin
    raise PluginError(
        f"runtime {entry.name!r} ({entry.value}, from {entry.distribution}) is not a "
        f"runtime plugin: {'; '.join(problems)}"
    )


def _shape_problems(plugin: object, name: str) -> Iterator[str]:
    if isinstance(plugin, type):
        yield f"it is the class {plugin.__name__}, not an instance of it"
        return
    own_name = getattr(plugin, "name", None)
    if own_name != name:
        yield f"name is {own_name!r}, but it is registered as {name!r}"
    summary = getattr(plugin, "summary", None)
    if not isinstance(summary, str) or not summary.strip():
        yield f"summary is {summary!r}, not a line of text"
    host = getattr(plugin, "host", None)
    if not isinstance(host, Host):
        yield f"host is {host!r}, not a member of Host"
    for method in _METHODS:
        if not callable(getattr(plugin, method, None)):
            yield f"{method}() is missing"


def registered(
    installed: Installed, *, group: str = ENTRY_POINT_GROUP, noun: str = "runtime"
) -> list[tuple[RuntimeEntry, EntryPoint]]:
    """Return the plugins of an entry-point group by name, without importing any.

    Args:
        installed: where they are looked for.
        group: the group's name.
        noun: what messages call one of them.

    Raises:
        PluginError: two distributions register the same name, or one
            registers something that is not ``module:attribute``.
    """
    if installed is distributions:
        return list(_registered_here(group, noun, _stamp()))
    return _read_all(installed, group, noun)


def _stamp() -> tuple[tuple[str, int], ...]:
    """Return what is another value when something was installed or removed."""
    return tuple((folder, _changed_ns(folder)) for folder in sys.path)


def _changed_ns(folder: str) -> int:
    try:
        return os.stat(folder or ".").st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=16)
def _registered_here(
    group: str, noun: str, _: tuple[tuple[str, int], ...]
) -> tuple[tuple[RuntimeEntry, EntryPoint], ...]:
    """Return what is registered on ``sys.path`` as it is now; errors are not kept."""
    return tuple(_read_all(distributions, group, noun))


def _read_all(
    installed: Installed, group: str, noun: str
) -> list[tuple[RuntimeEntry, EntryPoint]]:
    found: dict[str, tuple[RuntimeEntry, EntryPoint]] = {}
    # A distribution's name costs a read of all its metadata, which is a tenth of a
    # second for an environment: only those that have plugins are asked for theirs,
    # and once.
    plugins = (d for d in installed() if d.entry_points.select(group=group))
    for name, distribution in _unique(plugins):
        for point in distribution.entry_points.select(group=group):
            entry = _entry(point, name, noun)
            earlier = found.get(entry.name)
            if earlier is not None:
                raise PluginError(
                    f"two plugins are called {entry.name!r}: {earlier[0].value} from "
                    f"{earlier[0].distribution} and {entry.value} from "
                    f"{entry.distribution}; uninstall one of them"
                )
            found[entry.name] = (entry, point)
    return [found[name] for name in sorted(found)]


def _unique(found: Iterable[Distribution]) -> Iterator[tuple[str, Distribution]]:
    """Yield distributions with their names, each once."""
    # An editable install shows up twice when its checkout is on sys.path too;
    # importlib.metadata.entry_points() drops the later one in the same way.
    seen: set[str] = set()
    for distribution in found:
        name = distribution.name
        if _normal(name) not in seen:
            seen.add(_normal(name))
            yield name, distribution


def _entry(point: EntryPoint, distribution: str, noun: str) -> RuntimeEntry:
    match = point.pattern.match(point.value)
    if match is None or not match["attr"]:
        raise PluginError(
            f"{noun} {point.name!r} from {distribution} is registered as "
            f"{point.value!r}, which is not of the form module:attribute"
        )
    return RuntimeEntry(point.name, f"{match['module']}:{match['attr']}", distribution)


def _fetch(name: str, installed: Installed) -> tuple[RuntimeEntry, EntryPoint]:
    found = registered(installed)
    for entry, point in found:
        if entry.name == name:
            return entry, point
    names = [entry.name for entry, _ in found]
    raise _unknown(name, names, installed)


def _unknown(name: str, names: list[str], installed: Installed) -> PluginError:
    if _normal(name) in _extras(installed):
        told = f"runtime {name!r} is not installed; run: {_install_command(name)}"
        return PluginError(told)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    known = ", ".join(names) if names else "none"
    error = UnknownRuntimeError(
        f"no runtime is called {name!r}; {hint}installed: {known}"
    )
    error.near = near[0] if near else None
    return error


def _extras(installed: Installed) -> frozenset[str]:
    for name, distribution in _unique(installed()):
        if _normal(name) == DISTRIBUTION_NAME:
            extras = distribution.metadata.get_all("Provides-Extra") or []
            return frozenset(_normal(extra) for extra in extras)
    return frozenset()


def _install_command(extra: str) -> str:
    return f"pip install '{DISTRIBUTION_NAME}[{extra}]'"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
