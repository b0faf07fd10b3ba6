"""Read the members of a JSON object one by one, each with its own error.

A client's mistake must name the member (``param``); so an object is taken apart
into raw members first, and each is then decoded with its own type.

Pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import Raw

from atomr_infer.errors import InvalidRequestError
from atomr_infer.model.source import names_model

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_members = msgspec.json.Decoder(dict[str, Raw])

_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_NULL = b"null"
_SHOWN_BYTES = 60


# One for each type that the code names, made when it is first met.
_decoders: dict[object, msgspec.json.Decoder[Any]] = {}


def _decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    found = _decoders.get(kind)
    if found is None:
        found = _decoders[kind] = msgspec.json.Decoder(kind)
    return found


def invalid(param: str, problem: str) -> InvalidRequestError:
    """Return the error for a member of the request."""
    return InvalidRequestError(f"'{param}' {problem}", param=param)


def decode(param: str, raw: Raw | bytes, kind: type[T], *, wanted: str) -> T:
    """Return a JSON value of a type.

    Raises:
        InvalidRequestError: it has another one; the message says what was wanted.
    """
    try:
        return _decoder(kind).decode(raw)
    except _ERRORS as error:
        if not _is_utf8(raw):
            raise invalid(param, "is not UTF-8") from error
        shown = bytes(raw)[:_SHOWN_BYTES].decode("utf-8", "replace")
        raise invalid(param, f"must be {wanted}, not {shown}") from error


def _is_utf8(raw: Raw | bytes) -> bool:
    """Return whether bytes are text: the reader's error says it in one version only."""
    try:
        bytes(raw).decode()
    except UnicodeDecodeError:
        return False
    return True


# The first half of a pair, and no second one: json.dumps makes it of broken text.
_LONE = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])")


def _why(body: bytes, error: Exception) -> str:
    """Return what is wrong with JSON; its reader calls half a character truncated."""
    half = _LONE.search(body) if "truncated" in str(error) else None
    if half is None:
        return str(error)
    return f"a surrogate stands alone (byte {half.start()})"


class Fields:
    """The members of one object; what was read is gone from it.

    Attributes:
        param: the object's own place in the request; "" for the root.
    """

    def __init__(self, members: dict[str, Raw], param: str = "") -> None:
        self._members = members
        self.param = param

    @classmethod
    def of_body(cls, body: bytes, *, wanted: str) -> Fields:
        """Return the root object of a request.

        Args:
            body: JSON in UTF-8.
            wanted: what the object must hold, for the error.

        Raises:
            InvalidRequestError: it is no JSON object.
        """
        try:
            return cls(_members.decode(body))
        except msgspec.ValidationError as error:
            raise InvalidRequestError(
                f"the request body must be a JSON object {wanted}"
            ) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            problem = f"the request body is not valid JSON: {_why(body, error)}"
            raise InvalidRequestError(problem, code="invalid_json") from error
        except RecursionError as error:
            problem = "the request body is nested too deeply"
            raise InvalidRequestError(problem) from error

    @classmethod
    def of(cls, raw: Raw, param: str) -> Fields:
        """Return a nested object.

        Raises:
            InvalidRequestError: it is none.
        """
        return cls(decode(param, raw, dict[str, Raw], wanted="an object"), param)

    def renamed(self, rename: Callable[[str], str]) -> Fields:
        """Return the same object with its members under other names.

        Args:
            rename: returns a name's other form, or the name itself.
        """
        members = {rename(name): raw for name, raw in self._members.items()}
        return Fields(members, self.param)

    def path(self, name: str) -> str:
        """Return a member's place in the request.

        >>> Fields({}, "messages[0]").path("role")
        'messages[0].role'
        """
        return f"{self.param}.{name}" if self.param else name

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def raw(self, name: str) -> Raw | None:
        """Take a member as it is; None when it is absent or null."""
        raw = self._members.pop(name, None)
        # By its length first: a member may have megabytes, which would be copied.
        is_null = raw is not None and len(raw) == len(_NULL) and bytes(raw) == _NULL
        return None if is_null else raw

    def optional(self, name: str, kind: type[T], wanted: str) -> T | None:
        """Take a member; None when it is absent or null."""
        if name not in self._members:  # as most are, in every request
            return None
        raw = self.raw(name)
        return None if raw is None else self._decode(name, raw, kind, wanted)

    def required(self, name: str, kind: type[T], wanted: str) -> T:
        """Take a member that must be there."""
        raw = self._members.pop(name, None)
        if raw is None:
            raise invalid(self.path(name), "is required")
        return self._decode(name, raw, kind, wanted)

    def text(self, name: str) -> str | None:
        """Take a string; None when it is absent or null."""
        return self.optional(name, str, "a string")

    def flag(self, name: str) -> bool | None:
        """Take true or false; None when it is absent or null."""
        return self.optional(name, bool, "true or false")

    def number(self, name: str, low: float, high: float) -> float | None:
        """Take a number within bounds; None when it is absent or null."""
        if name not in self._members:
            return None
        value = self.optional(name, float, "a number")
        if value is not None and not low <= value <= high:
            problem = f"must be between {low} and {high}, not {value:g}"
            raise invalid(self.path(name), problem)
        return value

    def whole(self, name: str, low: int, high: int) -> int | None:
        """Take a whole number within bounds; None when it is absent or null."""
        if name not in self._members:
            return None
        value = self.optional(name, int, "a whole number")
        if value is not None and not low <= value <= high:
            problem = f"must be between {low} and {high}, not {value}"
            raise invalid(self.path(name), problem)
        return value

    def nested(self, name: str) -> Fields | None:
        """Take an object; None when it is absent or null."""
        raw = self.raw(name)
        return None if raw is None else Fields.of(raw, self.path(name))

    def items(self, name: str, wanted: str) -> list[tuple[str, Raw]]:
        """Take a list as (place, raw item); [] when it is absent or null."""
        raws = self.optional(name, list[Raw], wanted) or []
        return [(f"{self.path(name)}[{at}]", raw) for at, raw in enumerate(raws)]

    def put(self, name: str, value: object) -> None:
        """Put a member back, so that it is among the rest."""
        self._members[name] = Raw(msgspec.json.encode(value))

    def put_back(self, name: str, raw: Raw) -> None:
        """Put back what :meth:`raw` gave."""
        self._members[name] = raw

    def put_raw(self, name: str, members: dict[str, bytes]) -> None:
        """Put back an object of raw members."""
        self.put(name, {key: Raw(raw) for key, raw in members.items()})

    def refuse_other_model(self) -> None:
        """Refuse a member that some upstream would take for ``model``, now taken.

        Raises:
            InvalidRequestError: there is one.
        """
        for name in self._members:
            if names_model(name):
                raise invalid(self.path(name), "stands beside 'model'")

    def rest(self) -> dict[str, bytes]:
        """Return what was not taken, as raw JSON."""
        return {name: bytes(raw) for name, raw in self._members.items()}

    def _decode(self, name: str, raw: Raw, kind: type[T], wanted: str) -> T:
        return decode(self.path(name), raw, kind, wanted=wanted)
