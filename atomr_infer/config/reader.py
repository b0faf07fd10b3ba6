"""Taking parsed TOML apart, table by table, with a line for every mistake.

A :class:`TableReader` is one table of the document and knows where it stands.
Whatever is wrong with a key becomes a :class:`~atomr_infer.errors.ConfigError`
that names the file, the line, the key and the remedy; a value is shown only
where it cannot be a secret.

Pure.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from functools import partial
from typing import TypeVar

import attrs

from atomr_infer.config.mistakes import Mistakes
from atomr_infer.config.positions import Path, Positions
from atomr_infer.errors import ConfigError
from atomr_infer.model.validation import InvalidValueError

T = TypeVar("T")
A = TypeVar("A", bound=attrs.AttrsInstance)
E = TypeVar("E", bound=Enum)


@attrs.frozen
class Origin:
    """A configuration file and the lines of what is in it.

    Attributes:
        path: the file's path, as errors show it.
        positions: where each key stands.
    """

    path: str
    positions: Positions

    def error(self, where: Path, message: str) -> ConfigError:
        """Return an error that points at ``where``."""
        return ConfigError(message, path=self.path, line=self.positions.line(where))


@attrs.frozen
class TableReader:
    """One table of a document.

    Attributes:
        origin: the document.
        where: the table's path in it.
        label: how messages call the table: ``deployment 'tiny'``; "" for the
            whole document.
        content: its keys and values.
    """

    origin: Origin
    where: Path
    label: str
    content: Mapping[str, object]

    def fail(self, key: str, problem: str) -> ConfigError:
        """Return an error about ``key``, at its line."""
        message = f"{self.label}: {problem}" if self.label else problem
        return self.origin.error((*self.where, key), message)

    def check_keys(
        self, known: Iterable[str], also: Mapping[str, str] | None = None
    ) -> None:
        """Refuse keys that nothing reads.

        Args:
            known: the keys that this table has.
            also: what to say about keys that people write by mistake.

        Raises:
            ConfigError: of each unknown key, with the nearest known one.
        """
        mistakes = Mistakes()
        for key, hint in self.unknown_keys(known, also).items():
            mistakes.keep(self.fail(key, f"unknown key {key!r}; {hint}"))
        mistakes.tell()

    def unknown_keys(
        self, known: Iterable[str], also: Mapping[str, str] | None = None
    ) -> Mapping[str, str]:
        """Return what to say of each key that nothing reads; as :meth:`check_keys`."""
        names = list(known)
        return {
            key: (also or {}).get(key) or _nearest(key, names)
            for key in self.content
            if key not in names
        }

    def missing_keys(
        self,
        required: Mapping[str, str],
        known: Iterable[str],
        also: Mapping[str, str] | None = None,
    ) -> Iterator[ConfigError]:
        """Yield what to say of keys that are needed and not there.

        Of one that is misspelt the unknown key tells.
        """
        hints = self.unknown_keys(known, also).values()
        for key, problem in required.items():
            is_misspelt = any(f"did you mean {key!r}" in hint for hint in hints)
            if key not in self.content and not is_misspelt:
                yield self.fail(key, f"{key} is missing; {problem}")

    def table(self, key: str) -> TableReader | None:
        """Return the sub-table ``key``, or None when it is not written.

        Raises:
            ConfigError: it is not a table.
        """
        if key not in self.content:
            return None
        content = self.content[key]
        if not isinstance(content, dict):
            raise self.fail(key, f"{key} is {type_name(content)}, not a table")
        label = f"{self.label}: {key}" if self.label else key
        return TableReader(self.origin, (*self.where, key), label, content)

    def member(self, key: str, kind: type[E]) -> E:
        """Return the member of ``kind`` whose value is written under ``key``.

        Raises:
            ConfigError: there is none; the message names the nearest, or all.
        """
        value = self.content[key]
        for member in kind:
            if member.value == value:
                return member
        names = [str(member.value) for member in kind]
        near = difflib.get_close_matches(str(value), names, n=1)
        allowed = " or ".join(repr(name) for name in names)
        hint = f"did you mean {near[0]!r}?" if near else f"use {allowed}"
        raise self.fail(key, f"{key}: {value!r} is not allowed; {hint}")

    def make(self, build: Callable[..., T], values: Mapping[str, object]) -> T:
        """Call ``build(**values)`` and point at the key whose value it refuses.

        Raises:
            ConfigError: values are of the wrong type or out of range.
        """
        try:
            return build(**values)
        except (InvalidValueError, TypeError) as error:
            told = self._told(error)
            if isinstance(build, type) and attrs.has(build):
                self.check_values(build, values)
            raise told from error

    def check_values(
        self, build: type[attrs.AttrsInstance], values: Mapping[str, object]
    ) -> None:
        """Refuse each value that its field does not take, whatever the others are.

        Raises:
            ConfigError: there are such values.
        """
        mistakes = Mistakes()
        for field in attrs.fields(build):
            if field.name not in values or field.validator is None:
                continue
            value = values[field.name]
            with mistakes.kept():
                try:
                    value = value if field.converter is None else field.converter(value)
                    field.validator(None, field, value)
                except (InvalidValueError, TypeError) as error:
                    raise self._told(error) from error
        mistakes.tell()

    def _told(self, error: InvalidValueError | TypeError) -> Exception:
        if isinstance(error, InvalidValueError):
            return self.fail(error.field, str(error))
        return self._of_another_type(error)

    def _of_another_type(self, error: TypeError) -> Exception:
        """Return what attrs' ``instance_of`` means, or what it is not."""
        match error.args:
            case (str(), attrs.Attribute(name=str(field)), type() as wanted, value):
                name = _WANTED.get(wanted, f"a {wanted.__name__}")
                return self.fail(field, f"{field} is {type_name(value)}, not {name}")
        return error

    def read(
        self,
        build: type[A],
        readers: Mapping[str, Callable[[], object]] | None = None,
        *,
        also: Mapping[str, str] | None = None,
        required: Mapping[str, str] | None = None,
    ) -> A:
        """Make a value whose fields are this table's keys.

        Args:
            build: an attrs class.
            readers: what reads the value of a key, where it is not taken as it is
                written; asked for keys that are there.
            also: what to say about keys that people write by mistake.
            required: what to say where a key is missing.

        Raises:
            ConfigError: keys are unknown or missing, or values are not allowed; all
                such mistakes of this table.
        """
        mistakes, values = Mistakes(), {**self.content}
        known = [field.name for field in attrs.fields(build)]
        with mistakes.kept():
            self.check_keys(known, also)
        for error in self.missing_keys(required or {}, known, also):
            mistakes.keep(error)
        for key, read in (readers or {}).items():
            if key in values:
                del values[key]
                with mistakes.kept():
                    values[key] = read()
        if mistakes:
            with mistakes.kept():
                self.check_values(build, values)
        mistakes.tell()
        return self.make(build, values)

    def flag(self, key: str) -> bool:
        """Return what is written under ``key``, which is true or false.

        Raises:
            ConfigError: it is something else.
        """
        value = self.content[key]
        if not isinstance(value, bool):
            problem = f"{key} is {type_name(value)}, not true or false"
            raise self.fail(key, problem)
        return value

    def members(self, **kinds: type[Enum]) -> dict[str, Callable[[], object]]:
        """Return readers of keys whose values are members of enumerations."""
        return {key: partial(self.member, key, kind) for key, kind in kinds.items()}


def type_name(value: object) -> str:
    """Return what a person calls a TOML value's type, with its article.

    >>> type_name(True), type_name([1])
    ('true or false', 'an array')
    """
    for kind, name in _TYPE_NAMES:
        if isinstance(value, kind):
            return name
    return "a date or time"


_WANTED: Mapping[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
}

# In this order: to Python, a bool is an int.
_TYPE_NAMES: tuple[tuple[type, str], ...] = (
    (bool, "true or false"),
    (int, "a number"),
    (float, "a number"),
    (str, "a string"),
    (list, "an array"),
    (dict, "a table"),
)


def _nearest(key: str, names: list[str]) -> str:
    near = difflib.get_close_matches(key, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"use {', '.join(names)}"
