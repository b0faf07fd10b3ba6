"""A remote deployment's ``[options]``, read one by one, each with its own error.

Pure.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from atomr_infer.errors import ConfigError
from atomr_infer.remote.http.headers import check_header
from atomr_infer.remote.http.origin import parse_base_url

if TYPE_CHECKING:
    from atomr_infer.model.deployment import Deployment, OptionValue

RESERVED_HEADERS = frozenset(
    {
        "accept",
        "accept-encoding",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "expect",
        "host",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""What a client sets itself; ``authorization`` is the credential's."""


HTTP2 = ("off", "alpn", "prior-knowledge")
"""How a client asks for HTTP/2; see ``HttpClient``."""


class Options:
    """The options of one deployment."""

    def __init__(self, deployment: Deployment, known: Collection[str]) -> None:
        """Refuse what is not known.

        Args:
            deployment: whose options they are.
            known: the names that the runtime reads.

        Raises:
            ConfigError: names the option, and the one that was probably meant.
        """
        self._deployment = deployment
        for name in deployment.options:
            if name not in known:
                raise self.problem(name, f"is not known{_did_you_mean(name, known)}")

    def problem(self, option: str, problem: str) -> ConfigError:
        """Return the error for an option."""
        return ConfigError(
            f"deployment {self._deployment.name!r}, runtime"
            f" {self._deployment.runtime!r}: option {option!r} {problem}"
        )

    def text(self, name: str) -> str | None:
        """Return a text that is not empty; None when it is absent.

        Raises:
            ConfigError: it is something else.
        """
        value = self._value(name)
        if value is None or (isinstance(value, str) and value):
            return value
        problem = f"must be a text that is not empty, not {value!r}"
        raise self.problem(name, problem)

    def header_text(self, name: str, header: str) -> str | None:
        """Return a text that a header shall carry; None when it is absent.

        Raises:
            ConfigError: it is none, or HTTP cannot carry it.
        """
        value = self.text(name)
        if value is not None:
            self.check_header(name, header, value)
        return value

    def flag(self, name: str) -> bool | None:
        """Return true or false; None when it is absent.

        Raises:
            ConfigError: it is something else.
        """
        value = self._value(name)
        if value is None or isinstance(value, bool):
            return value
        raise self.problem(name, f"must be true or false, not {value!r}")

    def one_of(self, name: str, allowed: Collection[str], default: str) -> str:
        """Return one of several texts.

        Raises:
            ConfigError: it is another one.
        """
        value = self._value(name)
        if value is None:
            return default
        if value not in allowed:
            known = ", ".join(allowed)
            raise self.problem(name, f"must be one of {known}, not {value!r}")
        return str(value)

    def count(self, name: str) -> int | None:
        """Return a whole number of at least 1; None when it is absent.

        Raises:
            ConfigError: it is something else.
        """
        value = self._value(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.problem(name, f"must be a whole number above 0, not {value!r}")
        return value

    def base_url(self, name: str, default: str) -> str:
        """Return an ``http`` or ``https`` URL.

        Raises:
            ConfigError: it is none.
        """
        url = self.text(name) or default
        try:
            parse_base_url(url)
        except ValueError as error:
            raise self.problem(name, str(error)) from error
        return url

    def headers(self, name: str, reserved: Mapping[str, str]) -> dict[str, str]:
        """Return further headers of every request, by lower-case name.

        Args:
            name: the option.
            reserved: names that cannot be set, beside :data:`RESERVED_HEADERS`,
                each with what to use instead.

        Raises:
            ConfigError: one is reserved, given twice, or cannot be sent.
        """
        given = self._value(name)
        if given is None:
            return {}
        if not isinstance(given, Mapping):
            raise self.problem(name, "must be a table of names and texts")
        headers: dict[str, str] = {}
        for header, value in given.items():
            option, lower = f"{name}.{header}", header.lower()
            if lower in reserved or lower in RESERVED_HEADERS:
                instead = reserved.get(lower) or _instead(lower)
                raise self.problem(option, f"cannot be set; {instead}")
            if lower in headers:
                raise self.problem(option, "is given twice")
            if not isinstance(value, str):
                raise self.problem(option, "must be a text")
            self.check_header(option, lower, value)
            headers[lower] = value
        return headers

    def check_header(self, option: str, header: str, value: str) -> None:
        """Refuse a value that HTTP cannot carry.

        Raises:
            ConfigError: names the option and never shows the value.
        """
        try:
            check_header(header, value)
        except ValueError as error:
            raise self.problem(option, str(error)) from error

    def _value(self, name: str) -> OptionValue | None:
        return self._deployment.options.get(name)


def _instead(header: str) -> str:
    if header == "authorization":
        return "use the deployment's credential"
    return "the client sets it"


def _did_you_mean(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; allowed are {', '.join(known)}"
