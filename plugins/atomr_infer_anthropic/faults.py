"""What an answer other than 200 means.

Pure: the wall clock is an argument.

Source: Anthropic API, "Errors", "Rate limits".
"""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING

from atomr_infer.remote.http.retry_after import MAX_WAIT_S, retry_after_s
from atomr_infer.wire.anthropic.upstream_errors import classify
from atomr_infer.wire.openai.upstream_errors import ErrorBody, parse_error
from atomr_infer.wire.wrong_place import is_about_the_path, not_an_api

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.errors import InferenceError
    from atomr_infer.model.secret import Secret
    from atomr_infer.wire.wrong_place import Place

_LIMIT = "anthropic-ratelimit-"
_RESET = "-reset"


def fault(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now_epoch_s: float,
    secret: Secret | None = None,
    place: Place,
) -> InferenceError:
    """Return the error of inference for an answer that is not one.

    Args:
        status: any but 200.
        headers: by lower-case name.
        body: as much of it as was read.
        now_epoch_s: the wall clock, for waits that are told as a time.
        secret: our key, blotted out should the upstream repeat it.
        place: who was asked.

    Returns:
        By ``type`` and status (see ``upstream_errors``).  A 404 about the
        path, a 405, and any 1xx to 3xx come from something that is not such a
        server: :class:`UpstreamProtocolError`.
    """
    said = parse_error(body)
    if status < HTTPStatus.BAD_REQUEST:
        return not_an_api(status, body, place)
    message, code = ("", None) if said is None else (said.message, said.code)
    if is_about_the_path(status, message, code):
        return not_an_api(status, body, place)
    return classify(
        said or ErrorBody(),
        status=status,
        retry_after_s=wait_s(status, headers, now_epoch_s=now_epoch_s),
        secret=secret,
    )


def wait_s(
    status: int, headers: Mapping[str, str], *, now_epoch_s: float
) -> float | None:
    """Return the seconds to wait; None when the headers do not say.

    ``retry-after-ms`` and ``retry-after`` win.  Without them a 429 says it by
    the limits that are spent: the one that is full again last.

    >>> wait_s(
    ...     429,
    ...     {
    ...         "anthropic-ratelimit-tokens-remaining": "0",
    ...         "anthropic-ratelimit-tokens-reset": "1970-01-01T00:00:07Z",
    ...     },
    ...     now_epoch_s=2.0,
    ... )
    5.0
    """
    said = retry_after_s(headers, now_epoch_s=now_epoch_s)
    if said is not None or status != HTTPStatus.TOO_MANY_REQUESTS:
        return said
    waits = [
        at - now_epoch_s
        for name, text in headers.items()
        if _is_spent(name, headers) and (at := _epoch_s(text)) is not None
    ]
    return min(max(0.0, *waits), MAX_WAIT_S) if waits else None


def _is_spent(name: str, headers: Mapping[str, str]) -> bool:
    """Whether a header tells when a limit is full again that has nothing left."""
    if not (name.startswith(_LIMIT) and name.endswith(_RESET)):
        return False
    return headers.get(name.removesuffix(_RESET) + "-remaining") == "0"


def _epoch_s(text: str) -> float | None:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
