"""What is known of an actor: its code, and what its decorator says.

A deployment is a value that crosses to other processes and nodes, so it names its code,
``module:name``, and each process finds the code by that name.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from atomr_infer.actors.forms import Forms, forms_of
from atomr_infer.errors import ConfigError
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.placement import Placement

if TYPE_CHECKING:
    from atomr_infer.model.deployment import OptionValue

_GIB = 1 << 30
_MAIN = "__main__"
_MARK = "__atomr_actor__"

ASKS = "asks"
"""The option of a deployment that says whom its actor asks, in place of the code's."""


class Kind(Enum):
    """Where an actor runs; the value is the runtime of its deployments."""

    LOOP = "actor"
    PROCESS = "python"


@attrs.frozen(kw_only=True, eq=False, slots=False)
class Actor:
    """A definition: what is deployed, any number of times, under names.

    Attributes:
        wrapped: the class or the function.
        kind: where it runs.
        asks: the names that it asks, if its deployment does not say it.
        concurrency: requests that one of it handles at once; None: one for a class,
            which may have a state, and many for a function.
        devices: GPUs that it needs.
        memory_bytes: what it takes of each; None: all of it.
    """

    wrapped: Callable[..., object]
    kind: Kind
    asks: tuple[str, ...] = ()
    concurrency: int | None = None
    devices: int = 0
    memory_bytes: int | None = None

    @property
    def label(self) -> str:
        """What errors call it."""
        return f"{self.wrapped.__module__}:{self.wrapped.__qualname__}"

    @property
    def is_class(self) -> bool:
        """Whether there is an object of it for each replica."""
        return isinstance(self.wrapped, type)

    @property
    def given(self) -> int:
        """How many arguments each request brings."""
        return 2 if self.kind is Kind.LOOP else 1

    @cached_property
    def forms(self) -> Forms[Any, Any]:
        """The types of its requests and replies.

        Raises:
            ConfigError: they cannot be known.
        """
        function, place = self.wrapped, self.given - 1
        if self.is_class:
            # Of a class the function is found with its self.
            function, place = function.handle, place + 1  # type: ignore[attr-defined]
        return forms_of(function, place=place, who=self.label)

    def deployment(
        self, name: str, args: tuple[object, ...], options: dict[str, Any]
    ) -> Deployment:
        """Return the deployment of it under a name; see ``deployment_of``."""
        memory = None if self.memory_bytes is None else self.memory_bytes / _GIB
        if not self.devices:
            memory = None
        return Deployment(
            name=name,
            runtime=f"{self.kind.value}:{self._place()}",
            options=self._options(args, options),
            placement=Placement(gpus=self.devices, gpu_memory_gib=memory),
        )

    def _options(
        self, args: tuple[object, ...], options: dict[str, Any]
    ) -> dict[str, OptionValue]:
        signature = inspect.signature(self.wrapped)
        given = () if self.is_class else (None,) * self.given
        bound = signature.bind(*given, *args, **options).arguments
        found: dict[str, Any] = dict([*bound.items()][len(given) :])
        for name, parameter in signature.parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                found |= found.pop(name, {})
        for name, value in found.items():
            if not _is_option(value):
                raise ConfigError(
                    f"{self.label}: {name} is {value!r}; an option is what TOML can "
                    "hold: text, a number, true or false, a list or a table"
                )
        return found

    def _place(self) -> str:
        """Return where another process finds it: ``module:name``, or ``file.py:name``.

        Raises:
            ConfigError: none could.
        """
        module, name = self.wrapped.__module__, self.wrapped.__qualname__
        if "<locals>" in name:
            raise ConfigError(
                f"{self.label} is inside a function; an actor is found by its name, so "
                "define it at the top of a module"
            )
        # One that was found by its file has a name that nobody can import.
        if module != _MAIN and all(map(str.isidentifier, module.split("."))):
            return f"{module}:{name}"
        file = getattr(sys.modules.get(module), "__file__", None)
        if file is None or not file.endswith(".py"):
            raise ConfigError(f"{self.label} is in no file; write it into a module")
        return f"{Path(file).absolute()}:{name}"


def mark(actor: Actor) -> None:
    """Let the code be known as an actor's.

    Raises:
        ConfigError: it takes an option that is not the code's.
    """
    names = _parameters(actor.wrapped)
    if ASKS in names[0 if actor.is_class else actor.given :]:
        raise ConfigError(
            f"{actor.label} has a parameter {ASKS!r}; the option of that name says "
            "whom an actor asks, and is not given to the code: call it something else"
        )
    setattr(actor.wrapped, _MARK, actor)


def _parameters(code: Callable[..., object]) -> list[str]:
    try:
        return [*inspect.signature(code).parameters]
    except (TypeError, ValueError):
        return []  # a class in C, or the child of one, does not say it


def actor_of(found: object) -> Actor | None:
    """Return what is known of decorated code; None: it is none."""
    actor = getattr(found, _MARK, None)
    # A class has its parent's mark, and may want other words.
    return actor if isinstance(actor, Actor) and actor.wrapped is found else None


def decorated(found: object) -> Actor:
    """Return what is known of decorated code.

    Raises:
        ConfigError: it is none.
    """
    actor = actor_of(found)
    if actor is None:
        raise ConfigError(
            f"{found!r} is no actor; decorate it with inference_actor or gpu_actor"
        )
    return actor


def _is_option(value: object) -> bool:
    if isinstance(value, list):
        return all(map(_is_option, value))
    if isinstance(value, dict):
        return all(isinstance(k, str) and _is_option(v) for k, v in value.items())
    return isinstance(value, str | int | float | bool)
