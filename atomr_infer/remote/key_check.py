"""Whether a provider takes a key, found out by a request that costs nothing.

The list of models is asked for: every dialect has one, and no provider charges for it.
What it answers says less than it seems.  A 401 is about the key, whoever says it.  A
403 of a provider itself is about the key, too; but a proxy says 403 of whatever it does
not let through, and OpenAI of a key that may generate and may not list.  So only the
former ends a deployment, and of the latter nothing is concluded: a deployment that
works must not fail for what was asked on the side.

Source: OpenAI API guide, "Error codes" and "API key permissions"; Anthropic API,
"Errors"; Google AI, "Troubleshooting".
"""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

from atomr_infer.errors import InferenceError, UpstreamAuthError, UpstreamError
from atomr_infer.remote.provider import ProviderClient

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from atomr_infer.model.deployment import Timeouts
    from atomr_infer.model.secret import Secret
    from atomr_infer.remote.http.client import HttpClient
    from atomr_infer.remote.http.headers import Headers
    from atomr_infer.remote.provider import Fault
    from atomr_infer.remote.session import Session

_MAY_NOT_LIST = "missing scopes"
"""What OpenAI says to a key that was made without the right to list models."""


class KeyCheck:
    """Asks a provider for its list of models with a session's key."""

    def __init__(  # noqa: PLR0913 - all but one by keyword
        self,
        session: Session[HttpClient],
        *,
        path: str | None,
        headers: Headers = (),
        timeouts: Timeouts,
        show_key: Callable[[Secret], Headers],
        fault: Fault,
        is_own: bool,
    ) -> None:
        """Prepare; nothing is asked yet.

        Args:
            session: the HTTP client and the keys.
            path: the list's, with its query; None: there is none, and the key is only
                read or fetched.
            headers: beside those of every request and the key's.
            timeouts: the deployment's.
            show_key: the headers that carry a key.
            fault: what an answer other than 200 means.
            is_own: whether the provider itself is asked, and no proxy or other server.
        """
        self._session = session
        self._path = path
        self._headers = headers
        self._client = ProviderClient(
            session,
            timeouts=timeouts,
            replay=True,
            show_key=show_key,
            fault=partial(_fault_of_list, fault, is_own=is_own),
        )

    async def check_key(self) -> None:
        """Ask; see :class:`~atomr_infer.runtimes.contract.ChecksKey`.

        Raises:
            UpstreamAuthError: the key is refused.
            InferenceError: nobody can say.

        Cancellation: closes the connection.
        """
        if self._path is not None:
            await self._client.ask(
                self._path, b"", method="GET", headers=self._headers, client_headers={}
            )
            return
        keys = self._session.credentials
        keys.released(await keys.current())


def _fault_of_list(  # noqa: PLR0913 - a fault's, by keyword
    fault: Fault,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now_epoch_s: float,
    secret: Secret | None = None,
    is_own: bool,
) -> InferenceError:
    """Return what an answer to the request for the list means."""
    error = fault(status, headers, body, now_epoch_s=now_epoch_s, secret=secret)
    if isinstance(error, UpstreamAuthError) and not is_about_key(error, is_own=is_own):
        return UpstreamError(
            f"the list of models is not for this key: {error.message}", status=status
        )
    return error


def is_about_key(error: UpstreamAuthError, *, is_own: bool) -> bool:
    """Whether a refused list means that generations are refused, too.

    Args:
        error: the refusal.
        is_own: whether the provider itself said it.

    >>> is_about_key(UpstreamAuthError("no such key", status=401), is_own=False)
    True
    >>> is_about_key(UpstreamAuthError("Forbidden", status=403), is_own=False)
    False
    """
    if error.status == HTTPStatus.PAYMENT_REQUIRED:
        return False
    if _MAY_NOT_LIST in error.message.lower():
        return False
    return is_own or error.status != HTTPStatus.FORBIDDEN
