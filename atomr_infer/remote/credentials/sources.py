"""The places where one key can be: fixed, a variable, a file.

A source is asked at every request, so that a rotated key takes effect by
itself.  It answers from memory for as long as it can: a variable is looked up
each time, a file is looked at once a second and read only when it has changed.

A place that turns up empty keeps its last key, with a warning: a file that is
just being written must not stop a gateway.

The file belongs on a local disk, where a look takes microseconds; it is looked
at in the event loop.
"""

from __future__ import annotations

import logging
import math
import os
import re
from typing import TYPE_CHECKING, Protocol

import trio

from atomr_infer.config.secrets import resolve
from atomr_infer.errors import MissingSecretError
from atomr_infer.model.secret import EnvSecret, FileSecret, Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

_ONE_WORD = re.compile(r"[!-~]+")

LOOK_EVERY_S = 1.0
"""Longest time that a changed file goes unseen, while its key is not refused."""


class SecretReader(Protocol):
    """One place where a key can be."""

    @property
    def text_is_key(self) -> bool:
        """True where another text is another key; False where it is a new token."""
        ...

    def peek(self) -> Secret | None:
        """Return the key as of now, without waiting; None: it must be fetched."""
        ...

    async def read(self) -> Secret:
        """Return the key as of now.

        Raises:
            InferenceError: it could not be fetched.
        """
        ...

    def refused(self, secret: Secret) -> None:
        """Take the news that the upstream refused this key: look again at once."""
        ...


class FixedReader:
    """A key that a program gave."""

    text_is_key = True

    def __init__(self, secret: Secret) -> None:
        self._secret = secret

    def peek(self) -> Secret:
        """Return the key."""
        return self._secret

    async def read(self) -> Secret:
        """Return the key."""
        return self._secret

    def refused(self, secret: Secret) -> None:
        """Do nothing: there is no other."""


class EnvReader:
    """A key in an environment variable."""

    text_is_key = True

    def __init__(
        self, source: EnvSecret, environ: Mapping[str, str], *, deployment: str
    ) -> None:
        """Read the variable.

        Raises:
            MissingSecretError: it is not set, empty, or holds no key.
        """
        self._source = source
        self._environ = environ
        self._deployment = deployment
        self._text = environ.get(source.variable)
        self._secret = _key(source, environ, deployment)

    def peek(self) -> Secret:
        """Return the variable's value, or the last one that it had."""
        text = self._environ.get(self._source.variable)
        if text != self._text:
            self._text = text
            self._secret = _or_last(
                self._source, self._environ, self._deployment, self._secret
            )
        return self._secret

    async def read(self) -> Secret:
        """Return the variable's value, or the last one that it had."""
        return self.peek()

    def refused(self, secret: Secret) -> None:
        """Do nothing: the variable is looked up each time."""


class FileReader:
    """A key in a file."""

    text_is_key = True

    def __init__(self, source: FileSecret, *, deployment: str) -> None:
        """Read the file.

        Raises:
            MissingSecretError: it is not there, empty, unreadable, or holds no key.
        """
        self._source = source
        self._deployment = deployment
        self._signature = _signature(source.path)
        self._secret = _key(source, {}, deployment)
        self._look_at = -math.inf

    def peek(self) -> Secret:
        """Return the file's content, or the last one that it had."""
        now = trio.current_time()
        if now < self._look_at:
            return self._secret
        self._look_at = now + LOOK_EVERY_S
        signature = _signature(self._source.path)
        if signature != self._signature:
            self._signature = signature
            self._secret = _or_last(self._source, {}, self._deployment, self._secret)
        return self._secret

    async def read(self) -> Secret:
        """Return the file's content, or the last one that it had."""
        return self.peek()

    def refused(self, secret: Secret) -> None:
        """Look at the file again when asked next."""
        if secret == self._secret:
            self._look_at = trio.current_time()
            # Read whatever its times say: some disks keep them to the second.
            self._signature = None


def _signature(path: str) -> tuple[int, int, int] | None:
    """Return what changes when a file is rewritten or replaced; None: no file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _or_last(
    source: EnvSecret | FileSecret,
    environ: Mapping[str, str],
    deployment: str,
    last: Secret,
) -> Secret:
    try:
        return _key(source, environ, deployment)
    except MissingSecretError as error:
        log.warning("%s; the last key is used on", error)
        return last


def _key(
    source: EnvSecret | FileSecret, environ: Mapping[str, str], deployment: str
) -> Secret:
    """Return a secret that can be a key: one word that a header can carry."""
    secret = resolve(source, environ, deployment=deployment)
    if _ONE_WORD.fullmatch(secret.reveal()) is not None:
        return secret
    where = (
        f"the environment variable {source.variable}"
        if isinstance(source, EnvSecret)
        else f"the file {source.path}"
    )
    raise MissingSecretError(
        f"deployment {deployment!r} has no credential: {where} holds a character "
        "that no key has; look for a line end or a space in it"
    )
