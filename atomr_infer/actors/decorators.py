"""`@inference_actor` and `@gpu_actor`: a class or a function may be deployed.

=================== ============================== ==============================
decorator           it is given                    it runs
=================== ============================== ==============================
``inference_actor`` a context, and a request       in the gateway's own loop
``gpu_actor``       a request                      in a process with a GPU, in one
                                                   thread
=================== ============================== ==============================

What asks others only waits, so it belongs where the others are asked from.  What
computes would hold that loop, and what crashes would take it down, so it has a process
of its own, and asks nobody.

The class or function stays what it is: a test makes it and calls it as any other.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, overload

import attrs

from atomr_infer.actors.definition import Actor, Kind, decorated, mark
from atomr_infer.errors import ConfigError

if TYPE_CHECKING:
    from atomr_infer.actors.context import Context
    from atomr_infer.actors.shapes import Handles, HandlesAlone, Tells
    from atomr_infer.model.deployment import Deployment

P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., object])
C = TypeVar("C", bound=type)


def _row(asks: Iterable[str]) -> tuple[str, ...]:
    if isinstance(asks, str):
        raise ConfigError(f"asks is {asks!r}; write a row: asks=({asks!r},)")
    return tuple(asks)


def _not_negative(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if type(value) is not int or value < 0:
        raise ConfigError(f"{field.name} is {value!r}; it must be a number, 0 at least")


def _at_least_one(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if value is not None and (type(value) is not int or value < 1):
        raise ConfigError(f"{field.name} is {value!r}; it must be a number, 1 at least")


@attrs.frozen(kw_only=True)
class _InferenceActor:
    """See :data:`inference_actor`."""

    asks: tuple[str, ...] = attrs.field(default=(), converter=_row)
    concurrency: int | None = attrs.field(default=None, validator=_at_least_one)

    @overload
    def __call__(
        self, *, asks: Iterable[str] = (), concurrency: int | None = None
    ) -> _InferenceActor: ...
    @overload
    def __call__(self, code: F, /) -> F: ...
    def __call__(
        self, code: Callable[..., object] | None = None, **said: Any
    ) -> _InferenceActor | Callable[..., object]:
        """Decorate, or take what the decorator says."""
        if code is None:
            return _InferenceActor(**said)
        asked = _handle_of("inference_actor", code) if isinstance(code, type) else code
        if not (
            inspect.iscoroutinefunction(asked) or inspect.isasyncgenfunction(asked)
        ):
            raise ConfigError(
                f"{code.__qualname__} is not async; an inference_actor runs in the "
                "loop that serves all, so it may wait but not compute: write it with "
                "async def, or make it a gpu_actor, which has a process of its own"
            )
        mark(Actor(wrapped=code, kind=Kind.LOOP, **attrs.asdict(self)))
        return code


@attrs.frozen(kw_only=True)
class _GpuActor:
    """See :data:`gpu_actor`."""

    devices: int = attrs.field(default=1, validator=_not_negative)
    memory_bytes: int | None = attrs.field(default=None, validator=_at_least_one)
    concurrency: int | None = attrs.field(default=None, validator=_at_least_one)

    @overload
    def __call__(
        self,
        *,
        devices: int = 1,
        memory_bytes: int | None = None,
        concurrency: int | None = None,
    ) -> _GpuActor: ...
    @overload
    def __call__(self, code: C, /) -> C: ...
    def __call__(self, code: type | None = None, **said: Any) -> _GpuActor | type:
        """Decorate, or take what the decorator says."""
        if code is None:
            return _GpuActor(**said)
        _handle_of("gpu_actor", code)
        mark(Actor(wrapped=code, kind=Kind.PROCESS, **attrs.asdict(self)))
        return code


def _is_async(function: object) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _handle_of(decorator: str, code: object) -> object:
    """Return what is called with each request.

    Raises:
        ConfigError: it is none.
    """
    handle = getattr(code, "handle", None)
    if not isinstance(code, type) or not callable(handle):
        raise ConfigError(
            f"{code!r} is no class with a method handle; a {decorator} is asked by it"
        )
    return handle


inference_actor = _InferenceActor()
"""Make a class or an async function an actor that asks deployments.

A function is called with a context and the request; of a class there is one object
for each replica, whose ``handle`` is called so.  What else either takes are options of
its deployment.  ``load`` and ``close`` of a class are called before the first request
and behind the last one.

Args:
    asks: the names that it looks up.
    concurrency: requests at once; left out: 1 for a class, as a GenServer has it, and
        64 for a function.

Raises:
    ConfigError: it is not async, has no ``handle``, or has a parameter ``asks``.
"""

gpu_actor = _GpuActor()
"""Make a class an actor that runs where a GPU is.

It has a process of its own, with its own CUDA context; what is not async in it runs in
one and the same thread, from the making of the object to its ``close``.  In a cluster
it is placed on a node with so many GPUs that are free.

Args:
    devices: GPUs that it needs; 0: it runs without one, as in a test.
    memory_bytes: what it takes of each, for who places it; left out: all of it.
    concurrency: requests at once; left out: 1.

Raises:
    ConfigError: it has no ``handle``, it has a parameter ``asks``, or a number makes
        no sense.
"""


@overload
def deployment_of(
    code: Callable[P, Handles[Any, Any] | Tells[Any] | HandlesAlone[Any, Any]],
    name: str,
    /,
    *args: P.args,
    **options: P.kwargs,
) -> Deployment: ...
@overload
def deployment_of(
    code: Callable[Concatenate[Context, Any, P], object],
    name: str,
    /,
    *args: P.args,
    **options: P.kwargs,
) -> Deployment: ...
def deployment_of(
    code: Callable[..., object], name: str, /, *args: Any, **options: Any
) -> Deployment:
    """Return the deployment of an actor under a name.

    Change what else it says with ``attrs.evolve``: replicas, limits, time-outs.

    Args:
        code: the decorated class or function.
        name: the deployment's.
        *args: what the class or the function takes beside context and request.
        **options: the same, by name.

    Raises:
        ConfigError: it is no actor, no other process could find it, or a value is none
            that TOML can hold.
        TypeError: it does not take these.
    """
    return decorated(code).deployment(name, args, options)
