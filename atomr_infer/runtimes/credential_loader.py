"""Finding credential providers by entry point, and checking them before use.

As :mod:`atomr_infer.runtimes.loader` does for runtimes: a provider is imported
when a deployment names it, and refused at once when it is none.
"""

from __future__ import annotations

import difflib
from importlib.metadata import distributions
from typing import TYPE_CHECKING

from atomr_infer.errors import PluginError
from atomr_infer.runtimes.credentials import CREDENTIALS_GROUP, CredentialProvider
from atomr_infer.runtimes.loader import registered

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from atomr_infer.runtimes.loader import Installed

_NOUN = "credential provider"


def load_provider(
    name: str, installed: Installed = distributions
) -> CredentialProvider:
    """Import the credential provider called ``name`` and check its shape.

    Raises:
        PluginError: none is registered under that name, its module fails to
            import, it is no provider, or it lacks packages.
    """
    provider = _import(name, _point(name, installed))
    if not isinstance(provider, CredentialProvider) or isinstance(provider, type):
        raise PluginError(f"{_NOUN} {name!r} has not the shape of one")
    if provider.name != name:
        raise PluginError(f"{_NOUN} {name!r} calls itself {provider.name!r}")
    missing = provider.missing()
    if missing:
        packages = " ".join(missing)
        raise PluginError(f"{_NOUN} {name!r} needs more; run: pip install {packages}")
    return provider


def _point(name: str, installed: Installed) -> EntryPoint:
    found = registered(installed, group=CREDENTIALS_GROUP, noun=_NOUN)
    for entry, point in found:
        if entry.name == name:
            return point
    names = [entry.name for entry, _ in found]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    known = ", ".join(names) if names else "none"
    raise PluginError(f"no {_NOUN} is called {name!r}; {hint}installed: {known}")


def _import(name: str, point: EntryPoint) -> object:
    try:
        return point.load()
    except Exception as error:
        # The import runs foreign code, which may raise anything at all.
        raise PluginError(
            f"{_NOUN} {name!r} ({point.value}) cannot be imported: "
            f"{type(error).__name__}: {error}"
        ) from error
