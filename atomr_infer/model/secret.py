"""Secrets that cannot be read by accident.

A :class:`Secret` shows itself as ``Secret('***')`` in every text form and
refuses to be pickled; the only way to the text is :meth:`Secret.reveal`, which
is easy to search for.  A :class:`SecretSource` says where the secret is to be
found, so that a configuration never holds one.

Pure: reading the environment and files is ``atomr_infer.config.secrets``'s.
"""

from __future__ import annotations

from typing import NoReturn

import attrs


@attrs.frozen(repr=False, str=False, eq=True, hash=True)
class Secret:
    """A credential in memory.

    >>> Secret("sk-123")
    Secret('***')
    >>> f"{Secret('sk-123')}"
    "Secret('***')"
    """

    _text: str

    def reveal(self) -> str:
        """Return the text; call it only where the bytes leave for the upstream."""
        return self._text

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return repr(self)

    def __format__(self, format_spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled or copied to another process")


@attrs.frozen
class EnvSecret:
    """The secret is the value of an environment variable."""

    variable: str


@attrs.frozen
class FileSecret:
    """The secret is a file's content, without trailing white space."""

    path: str


SecretSource = EnvSecret | FileSecret | Secret
