"""Where a runner's keys come from, and what a credential provider must be.

A runner asks for the key at each request, and says what became of it::

    grant = await credentials.current(batch.client_headers)
    ...                                   # a request with grant.secret
    credentials.accepted(grant)           # or refused(grant, error), or released

It never keeps a key: so a rotated one takes effect with the next request, and
a request that runs keeps the one that it started with.

A credential provider is an object named by an entry point of the group
``atomr_infer.credentials``.  It fetches a secret and says how long it is valid;
keeping it, renewing it ahead of its end, and doing so once for all who wait, is
not its business (:mod:`atomr_infer.remote.credentials.fetched`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import attrs

from atomr_infer.model.secret import Secret

if TYPE_CHECKING:
    from atomr_infer.errors import InferenceError

CREDENTIALS_GROUP = "atomr_infer.credentials"

NO_HEADERS: Mapping[str, str] = {}


@attrs.frozen(eq=False)
class Grant:
    """A key that one attempt may use.

    Attributes:
        secret: the key; None where the upstream asks for none.
        token: the issuer's own, to know the grant again.
    """

    secret: Secret | None
    token: object = None


class Credentials(Protocol):
    """A deployment's keys; safe to share among its runners."""

    @property
    def version(self) -> int:
        """Grows when what was built on the keys must be built anew."""
        ...

    @property
    def states(self) -> tuple[str, ...]:
        """What is known of each key, in its place: fresh, resting or dead.

        Empty where keys are not judged.
        """
        ...

    async def current(self, headers: Mapping[str, str] = NO_HEADERS) -> Grant:
        """Return the key for a first attempt; give it back by one of the others.

        Args:
            headers: the request's headers that may hold a key, by lower-case name.

        Raises:
            UpstreamAuthError: every key was refused.
            RateLimitedError: every key is resting; says for how long.
            InferenceError: the key could not be fetched.
        """
        ...

    async def another(self, tried: Sequence[Grant]) -> Grant | None:
        """Return a key for one more attempt of the same request.

        Args:
            tried: what was refused so far, the first attempt's first.

        Returns:
            None when there is no other; the last refusal is then the answer.

        Raises:
            InferenceError: as :meth:`current`.
        """
        ...

    def accepted(self, grant: Grant) -> None:
        """Take the news that the upstream took the key."""
        ...

    def refused(self, grant: Grant, error: InferenceError) -> bool:
        """Take the news of an error.

        Returns:
            True when the error is about the key, so that another may do better.
        """
        ...

    def released(self, grant: Grant) -> None:
        """Take the news that nothing was learnt: cancelled, or no answer."""
        ...

    def look(self) -> int:
        """Notice a key that was changed where it is kept; return :attr:`version`.

        Nothing is waited for: what has to be fetched is not looked at.
        """
        ...

    def renew(self) -> None:
        """Forget what was read, fetched and refused: read it anew when asked next."""
        ...


@attrs.frozen
class Fetched:
    """What a credential provider gave.

    Attributes:
        secret: the key or token.
        expires_in_s: how long it is valid from now, in seconds; None: until it
            is refused.
    """

    secret: Secret
    expires_in_s: float | None = None


@attrs.frozen(kw_only=True)
class ProviderContext:
    """What a provider gets besides its options.

    Attributes:
        deployment: whose credential it is, for errors.
        environ: the environment.
        secret: reads an option that is a ``{ env = }`` or ``{ file = }`` table;
            raises :class:`~atomr_infer.errors.MissingSecretError`.
    """

    deployment: str
    environ: Mapping[str, str] = attrs.field(repr=False)
    secret: Callable[[object], Secret] = attrs.field(repr=False)


@runtime_checkable
class CredentialProvider(Protocol):
    """Fetches secrets.  Subclass it, or match its shape."""

    @property
    def name(self) -> str:
        """The entry point's name, as deployments write it in ``provider``."""
        ...

    def missing(self) -> tuple[str, ...]:
        """Names of the Python packages that it needs and that are not installed."""
        return ()

    def validate(self, options: Mapping[str, object]) -> None:
        """Refuse options that could never work; reads and connects to nothing.

        Raises:
            ConfigError: names the option, its value and what is allowed.
        """
        ...

    async def fetch(
        self, options: Mapping[str, object], context: ProviderContext
    ) -> Fetched:
        """Get a secret; called again when it ends or is refused.

        Raises:
            InferenceError: it could not be had; no secret in the message.

        Cancellation: gives up at once; another caller may ask again.
        """
        ...
