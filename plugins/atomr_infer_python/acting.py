"""An actor as functions of a runner: what comes is read, what it gives is written."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from atomr_infer.actors.definition import ASKS, Kind
from atomr_infer.actors.request import Request
from atomr_infer.errors import ConfigError
from atomr_infer.model.capabilities import Capabilities, Feature
from atomr_infer_python.abilities import ASYNC_AT_ONCE, Abilities
from atomr_infer_python.calling import Function, as_ours
from atomr_infer_python.parameters import Parameters, check_options, parameters_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from atomr_infer.actors.definition import Actor
    from atomr_infer.actors.forms import Forms
    from atomr_infer.model.deployment import OptionValue
    from atomr_infer_python.thread import PinnedThread

_CAPABILITIES = frozenset({Feature.CHAT, Feature.COMPLETIONS})


def check_actor(
    who: str, actor: Actor, kind: Kind, options: Mapping[str, OptionValue]
) -> dict[str, OptionValue]:
    """Return what an actor's code is given of a deployment's options.

    Args:
        who: what errors call it.
        actor: it.
        kind: how the runtime runs actors.
        options: the deployment's.

    Raises:
        ConfigError: it is for another runtime, its types have no JSON, or an option
            is not taken.
    """
    if actor.kind is not kind:
        other = actor.kind.value
        raise ConfigError(f"{who} is an actor of another kind; write {other}:{who}")
    actor.forms.check(who)
    own = {name: value for name, value in options.items() if name != ASKS}
    found = parameters_of(actor.wrapped)
    if found is not None:
        check_options(who, _without_given(found, actor), own)
    return own


def _without_given(found: Parameters, actor: Actor) -> Parameters:
    """Leave out what each request brings."""
    if actor.is_class:
        return found
    names = [*inspect.signature(actor.wrapped).parameters][: actor.given]
    return Parameters(
        options=found.options.difference(names),
        required=found.required.difference(names),
        takes_any=found.takes_any,
        takes_request=found.takes_request,
    )


async def abilities_of_actor(
    who: str,
    actor: Actor,
    options: Mapping[str, OptionValue],
    thread: PinnedThread,
) -> Abilities:
    """Make an actor, and return its functions; that of requests takes what it is given.

    Raises:
        EngineError: making it fails.
    """
    default = 1
    handle: Function
    made: object = None
    if actor.is_class:
        with as_ours(who):
            made = await thread.run(partial(actor.wrapped, **options))
        handle = cast("Any", made).handle
    else:
        handle = partial(actor.wrapped, **options)
        default = ASYNC_AT_ONCE if _waits(handle) else 1
    return Abilities(
        generate=_told(handle, actor.forms, who),
        count_tokens=getattr(made, "count_tokens", None),
        figures=getattr(made, "figures", None),
        load=getattr(made, "load", None),
        close=getattr(made, "close", None),
        capabilities=Capabilities(
            features=_CAPABILITIES,
            sampling=frozenset({"max_tokens", "stop"}),
            max_concurrency=actor.concurrency or default,
        ),
    )


def _waits(handle: Function) -> bool:
    return inspect.iscoroutinefunction(handle) or inspect.isasyncgenfunction(handle)


def _told(handle: Function, forms: Forms[Any, Any], who: str) -> Function:
    """Return a function of a simple request, last of what it is given, for text."""

    def begun(*given: object) -> object:
        *context, request = given
        assert isinstance(request, Request)
        return handle(*context, forms.taken(request, who))

    async def whole(*given: object) -> object:
        return forms.given(await cast("Awaitable[object]", begun(*given)), who)

    async def pieces(*given: object) -> AsyncGenerator[object, None]:
        made = cast("AsyncGenerator[object, None]", begun(*given))
        async with aclosing(made):
            async for piece in made:
                yield piece

    def at_once(*given: object) -> object:
        made = begun(*given)
        if isinstance(made, Iterator | AsyncIterator):
            return made
        return forms.given(made, who)

    if inspect.isasyncgenfunction(handle):
        return pieces
    return whole if inspect.iscoroutinefunction(handle) else at_once
