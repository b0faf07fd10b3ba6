"""The values that an actor takes and gives, as text and back.

A ``str`` is itself; everything else is JSON of its type, as msgspec writes and checks
it: numbers, lists, mappings, dataclasses, attrs classes, structs, and unions of these.

Pure.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Generator, Iterable, Iterator
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    TypeVar,
    cast,
    get_origin,
    get_type_hints,
)

import attrs
import msgspec

from atomr_infer.actors.request import Request
from atomr_infer.errors import (
    ConfigError,
    InternalError,
    InvalidRequestError,
    UpstreamProtocolError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

Q = TypeVar("Q")
R = TypeVar("R")


@attrs.frozen
class Forms(Generic[Q, R]):
    """What is said to an actor, and what it says.

    Attributes:
        request: the type of what it takes; ``Request``: the whole conversation.
        reply: the type of what it gives.
    """

    request: Any
    reply: Any

    def check(self, who: str) -> None:
        """Refuse types that no JSON has.

        Raises:
            ConfigError: names the type.
        """
        for type_ in (self.request, self.reply):
            if type_ in (str, Request):
                continue
            try:
                msgspec.json.Decoder(type_)
            except TypeError as error:
                raise ConfigError(f"{who}: no JSON has {type_!r}: {error}") from error

    def asked(self, request: Q) -> str:
        """Return a request's text.

        Raises:
            InvalidRequestError: it cannot be written.
        """
        try:
            return _written(request, self.request)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidRequestError(f"no JSON has the request: {error}") from error

    def taken(self, request: Request, who: str) -> Q:
        """Return a request as the actor takes it.

        Raises:
            InvalidRequestError: it is not of its type.
        """
        if self.request is Request:
            return cast("Q", request)
        try:
            return cast("Q", _read(request.text, self.request))
        except (ValueError, RecursionError) as error:
            raise InvalidRequestError(
                f"{who} takes JSON of {_name(self.request)}: {error}", param="messages"
            ) from error

    def given(self, reply: object, who: str) -> str:
        """Return a reply's text.

        Raises:
            InternalError: it is not of the type that was said.
        """
        if self.reply is str and not isinstance(reply, str):
            raise InternalError(
                f"{who} returns {type(reply).__name__}, and says that it returns str"
            )
        try:
            return _written(reply, self.reply)
        except (TypeError, ValueError, RecursionError) as error:
            raise InternalError(f"{who}: no JSON has its reply: {error}") from error

    def told(self, text: str, who: str) -> R:
        """Return a reply as a value.

        Raises:
            UpstreamProtocolError: it is not of its type.
        """
        try:
            return cast("R", _read(text, self.reply))
        except (ValueError, RecursionError) as error:
            raise UpstreamProtocolError(
                f"{who} does not reply with JSON of {_name(self.reply)}: {error}"
            ) from error


TEXT: Forms[str, str] = Forms(str, str)
"""Text for text: what a model takes and gives."""


def _written(value: object, type_: Any) -> str:  # noqa: ANN401 - a type or a generic
    if type_ in (str, Request) and isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()


def _read(text: str, type_: Any) -> object:  # noqa: ANN401 - a type or a generic
    return text if type_ is str else msgspec.json.decode(text, type=type_)


def _name(type_: Any) -> str:  # noqa: ANN401 - a type or a generic
    return type_.__name__ if isinstance(type_, type) else str(type_)


def forms_of(function: Callable[..., object], *, place: int, who: str) -> Forms[Q, R]:
    """Return what a function takes at a place, and what it returns.

    What is not annotated is ``str``, and what comes piece by piece is text.

    Raises:
        ConfigError: it takes nothing there, or an annotation names what is not there
            when it runs.
    """
    function = getattr(function, "__func__", function)
    parameters = [*inspect.signature(function).parameters.values()]
    if len(parameters) <= place:
        raise ConfigError(f"{who} takes too little; it is given a request")
    asked = parameters[place].annotation
    said = {"request": asked, "return": function.__annotations__.get("return", str)}
    if asked is inspect.Parameter.empty:
        said["request"] = str
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        said["return"] = str  # what comes piece by piece, however it is annotated

    def probe() -> None:
        """Carry the two annotations alone: others may be for type checkers."""

    probe.__annotations__ = said
    try:
        hints = get_type_hints(probe, getattr(function, "__globals__", {}))
    except (NameError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"{who}: {error}; import what the request and the reply are annotated "
            "with outside of TYPE_CHECKING, and define it at the top of a module"
        ) from error
    return Forms(hints["request"], _whole(hints["return"]))


def _whole(reply: Any) -> Any:  # noqa: ANN401 - a type or a generic
    origin = get_origin(reply) or reply
    if reply is not str and isinstance(origin, type):
        pieces = issubclass(origin, AsyncIterable) or origin in _PIECES
        return str if pieces else reply
    return reply


_PIECES = frozenset({Iterable, Iterator, Generator})
