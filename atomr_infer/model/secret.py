"""Secrets that cannot be read by accident.

A :class:`Secret` shows itself as ``Secret('***')`` in every text form and
refuses to be pickled; the only way to the text is :meth:`Secret.reveal`, which
is easy to search for.  A :class:`SecretSource` says where the secret is to be
found, so that a configuration never holds one.

What others write can hold a secret too: an upstream repeats the key that it
refuses, whole, masked in the middle, or encoded.  :meth:`Secret.blot` takes
every such piece out of a text.

Pure: reading the environment and files is ``atomr_infer.config.secrets``'s.
"""

from __future__ import annotations

import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator, Mapping
from string import ascii_lowercase, ascii_uppercase
from typing import Any, NoReturn
from urllib.parse import quote, quote_plus

import attrs

from atomr_infer.model.validation import (
    InvalidValueError,
    at_least,
    at_most,
    identifier,
    non_empty,
)

_BLOT = "***"

_PIECE_CHARS = 8
"""A piece of a key that is this long is taken for the key.

OpenAI's refusal shows the first 8 and the last 4 characters of the key.
Shorter pieces are found in innocent text by chance.
"""

_QUAD_CHARS = 4
_STRIDE = _PIECE_CHARS - _QUAD_CHARS + 1

_BASE64_BYTES = 3

_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)


@attrs.frozen(repr=False)
class _Traces:
    """What a text is searched for; as secret as the secret.

    Attributes:
        pieces: every run of 8 characters of the secret's forms.
        quads: every run of 4.
    """

    pieces: frozenset[str]
    quads: frozenset[str]


@attrs.frozen(repr=False, str=False, eq=True, hash=True)
class Secret:
    """A credential in memory.

    >>> Secret("sk-123")
    Secret('***')
    >>> f"{Secret('sk-123')}"
    "Secret('***')"
    """

    _text: str
    # Made at the first error, and kept: making them costs more than a search.
    _known: list[_Traces] = attrs.field(init=False, factory=list, eq=False)

    def reveal(self) -> str:
        """Return the text; call it only where the bytes leave for the upstream."""
        return self._text

    def blot(self, text: str) -> str:
        """Return ``text`` without the secret, and without pieces of it.

        The secret is found whole, in any piece of 8 characters or more, in
        base64, percent-encoded and in hexadecimal.

        >>> Secret("sk-proj-0123456789").blot("no such key: sk-proj-0123****6789")
        'no such key: *******6789'

        Cost: 20 us for 1000 characters; for errors, not for answers.
        """
        if not self._text or not text:
            return text
        text = text.replace(self._text, _BLOT)
        if not self._known:
            self._known.append(_traces(self._text))
        return _without(text, self._known[0])

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return repr(self)

    def __format__(self, format_spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled or copied to another process")


def _traces(secret: str) -> _Traces:
    """Return what is searched for, in lower case: hosts and names lose theirs."""
    forms = [_lowered(form) for form in _forms(secret)]
    return _Traces(
        pieces=frozenset(run for form in forms for run in _runs(form, _PIECE_CHARS)),
        quads=frozenset(run for form in forms for run in _runs(form, _QUAD_CHARS)),
    )


def _runs(form: str, length: int) -> Iterator[str]:
    if len(form) >= _PIECE_CHARS:
        for start in range(len(form) - length + 1):
            yield form[start : start + length]


def _forms(secret: str) -> set[str]:
    raw = secret.encode()
    forms = {secret, quote(secret, safe=""), quote_plus(secret), raw.hex()}
    for encode in (b64encode, urlsafe_b64encode):
        for before in range(_BASE64_BYTES):
            # A secret inside other bytes ("Bearer ...") starts at any of three
            # places in a group; characters that a neighbour takes part in are
            # not the secret's.
            encoded = encode(b"\0" * before + raw).decode()
            groups, rest = divmod(before + len(raw), _BASE64_BYTES)
            forms.add(encoded[before + (before > 0) : 4 * groups + rest])
    return forms


def _lowered(text: str) -> str:
    """Return text with ASCII in lower case; other letters may change in length."""
    return text.translate(_LOWER)


def _without(text: str, traces: _Traces) -> str:
    lower = _lowered(text)
    kept: list[str] = []
    done = 0
    for near in _candidates(lower, traces.quads):
        for begin in range(max(0, near - _STRIDE + 1), near + 1):
            if lower[begin : begin + _PIECE_CHARS] in traces.pieces:
                end = begin + _PIECE_CHARS
                if begin > done or not kept:
                    kept += (text[done:begin], _BLOT)
                done = max(done, end)
    kept.append(text[done:])
    return "".join(kept)


def _candidates(lower: str, quads: frozenset[str]) -> list[int]:
    """Return where pieces may be.

    Any 8 characters hold 4 that begin at a multiple of 5, so a fifth of the
    text is looked at.
    """
    return [
        at
        for at in range(0, len(lower), _STRIDE)
        if lower[at : at + _QUAD_CHARS] in quads
    ]


@attrs.frozen
class EnvSecret:
    """The secret is the value of an environment variable."""

    variable: str


@attrs.frozen
class FileSecret:
    """The secret is a file's content, without trailing white space."""

    path: str


_HEADER = re.compile(r"[A-Za-z0-9-]+")

# What is about the connection, the body or another site's session is no key.
_NO_KEY_HEADERS = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "host",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    }
)


def _key_header(_: object, field: attrs.Attribute[str], value: object) -> None:
    non_empty(_, field, value)
    if not isinstance(value, str) or _HEADER.fullmatch(value) is None:
        raise InvalidValueError(field.name, value, "is not the name of a header")
    if value in _NO_KEY_HEADERS:
        raise InvalidValueError(field.name, value, "is a header that holds no key")


def _lower(name: str) -> str:
    return name.lower()


@attrs.frozen
class HeaderSecret:
    """The secret is what the client sends in a header of its request.

    Attributes:
        header: its name; of ``Authorization`` the word ``Bearer`` is dropped.

    >>> HeaderSecret("X-Upstream-Key").header
    'x-upstream-key'
    """

    header: str = attrs.field(converter=_lower, validator=_key_header)


@attrs.frozen
class PluginSecret:
    """The secret is what a credential provider gives, for as long as it says.

    Attributes:
        provider: the provider's entry-point name: ``oauth2``, ``google``, ...
        options: what only this provider understands; checked by it.
    """

    provider: str = attrs.field(validator=identifier)
    options: Mapping[str, object] = attrs.field(factory=dict, hash=False)


SecretSource = EnvSecret | FileSecret | HeaderSecret | PluginSecret | Secret


@attrs.frozen
class PooledSecret:
    """One key of several behind a deployment.

    Attributes:
        source: where it is; not a client's header.
        weight: its share of the requests beside the other keys' weights.
    """

    source: SecretSource
    weight: int = attrs.field(default=1, validator=[at_least(1), at_most(1000)])


def pooled(sources: object) -> tuple[PooledSecret, ...]:
    """Return keys as a pool; a bare source has the weight 1.

    Raises:
        InvalidValueError: one is a client's header, which is no key of ours.
    """
    assert isinstance(sources, (tuple, list)), "a field of Deployment"
    keys = tuple(s if isinstance(s, PooledSecret) else PooledSecret(s) for s in sources)
    for key in keys:
        if isinstance(key.source, HeaderSecret):
            raise InvalidValueError(
                "credentials", key.source.header, "is a client's header, not our key"
            )
    return keys


def alone(deployment: object, field: attrs.Attribute[Any], value: object) -> None:
    """Refuse a pool of keys beside a single key."""
    if value and getattr(deployment, "credential", None) is not None:
        problem = "stands beside credential; write one of the two"
        raise InvalidValueError(field.name, value, problem)
