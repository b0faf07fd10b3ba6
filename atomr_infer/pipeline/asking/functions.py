"""Functions of the operator's, by the names that a deployment gives them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

from atomr_infer.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable


def find_function(name: str, *, what: str) -> Callable[..., object]:
    """Return the function of ``python:<module>:<name>``.

    Args:
        name: the whole of it.
        what: the option that names it, for messages.

    Raises:
        ConfigError: it cannot be imported, or is none.
    """
    _, module, path = name.split(":")
    try:
        found: object = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise ConfigError(
            f"{what} {name!r}: {type(error).__name__}: {error}"
        ) from error
    if not callable(found):
        raise ConfigError(f"{what} {name!r} is {found!r}, and no function")
    return cast("Callable[..., object]", found)
