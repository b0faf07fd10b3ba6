"""What a function or object of the user's can do, as its parts say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, cast

import attrs

from atomr_infer.errors import ConfigError
from atomr_infer.model.capabilities import ALL_SAMPLING, Capabilities, Feature
from atomr_infer_python.calling import Function, runs_in_loop

if TYPE_CHECKING:
    from atomr_infer.model.deployment import OptionValue

ASYNC_AT_ONCE = 64
"""Requests at once of an async function; it waits for somebody else, as a rule."""

_OURS = frozenset({"max_tokens", "stop"})
"""What is done here, whatever the code does."""


@attrs.frozen(kw_only=True)
class Abilities:
    """The functions of a runner.

    Attributes:
        generate: makes pieces of a request; None: it writes no text.
        embed: makes vectors of texts.
        count_tokens: counts a text's tokens.
        figures: tells how it stands, in numbers; None: it tells none.
        load: called once, before the first request.
        close: called once, behind the last one.
        capabilities: what follows from that.
    """

    generate: Function | None = None
    embed: Function | None = None
    count_tokens: Function | None = None
    figures: Function | None = None
    load: Function | None = None
    close: Function | None = None
    capabilities: Capabilities


_METHODS = ("generate", "embed", "count_tokens", "figures", "load", "close")


def of_function(
    who: str, function: Function, options: Mapping[str, OptionValue]
) -> Abilities:
    """Return the abilities of a function that takes requests.

    Raises:
        ConfigError: what it says of itself makes no sense.
    """
    asked = partial(function, **options) if options else function
    return Abilities(
        generate=asked, capabilities=_capabilities(who, function, generate=function)
    )


def of_object(who: str, found: object) -> Abilities:
    """Return the abilities of an object with methods.

    Raises:
        ConfigError: it has neither ``generate`` nor ``embed``, or what it says of
            itself makes no sense.
    """
    methods = {name: _method(who, found, name) for name in _METHODS}
    generate, embed = methods["generate"], methods["embed"]
    if generate is None and embed is None:
        raise ConfigError(
            f"{who} has neither generate(request) nor embed(texts); it needs one"
        )
    capabilities = _capabilities(
        who,
        found,
        generate=generate,
        embed=embed,
        count_tokens=methods["count_tokens"],
    )
    return Abilities(capabilities=capabilities, **methods)


def _method(who: str, found: object, name: str) -> Function | None:
    method = getattr(found, name, None)
    if method is not None and not callable(method):
        raise ConfigError(f"{name} of {who} is {method!r}; it must be a method")
    return cast("Function | None", method)


def _capabilities(who: str, said: object, **functions: Function | None) -> Capabilities:
    features = {
        feature
        for name, gives in _FEATURES.items()
        if functions.get(name) is not None
        for feature in gives
    }
    asked = functions.get("generate") or functions.get("embed")
    is_async = asked is not None and runs_in_loop(asked)
    default = ASYNC_AT_ONCE if is_async else 1
    return Capabilities(
        features=frozenset(features),
        sampling=_OURS | _names(who, getattr(said, "sampling", ())),
        max_concurrency=_number(who, said, "max_concurrency") or default,
        context_tokens=_number(who, said, "context_tokens"),
    )


_FEATURES = {
    "generate": (Feature.CHAT, Feature.COMPLETIONS),
    "embed": (Feature.EMBEDDINGS,),
    "count_tokens": (Feature.COUNT_TOKENS,),
}

_Names = Callable[[], Iterable[object]]


def _names(who: str, said: object) -> frozenset[str]:
    allowed = ALL_SAMPLING - {"n", "top_logprobs"}
    is_row = isinstance(said, Iterable) and not isinstance(said, str)
    names = {*said} if is_row else {said}  # type: ignore[misc] # a row, as is_row says
    if not is_row or names - allowed:
        raise ConfigError(
            f"sampling of {who} is {said!r}; it names those of "
            f"{', '.join(sorted(allowed))} that the code looks at"
        )
    return frozenset(map(str, names))


def _number(who: str, said: object, name: str) -> int | None:
    number = getattr(said, name, None)
    if number is None or (type(number) is int and number >= 1):
        return number
    raise ConfigError(f"{name} of {who} is {number!r}; it must be a whole number")
