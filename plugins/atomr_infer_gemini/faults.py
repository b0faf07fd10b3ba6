"""What an answer other than 200 means.

Pure: the wall clock is an argument.

Source: Gemini API guide, "Troubleshooting"; Vertex AI, "API errors".
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from atomr_infer.errors import InferenceError, UpstreamProtocolError
from atomr_infer.remote.http.retry_after import retry_after_s
from atomr_infer.wire.gemini.upstream_errors import ErrorBody, classify, parse_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.model.secret import Secret


def fault(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now_epoch_s: float,
    secret: Secret | None = None,
) -> InferenceError:
    """Return the error of inference for an answer that is not one.

    Args:
        status: any but 200.
        headers: by lower-case name.
        body: as much of it as was read.
        now_epoch_s: the wall clock, for ``retry-after`` as a date.
        secret: our key, blotted out should the upstream repeat it.

    Returns:
        By reason, status word and status (see ``upstream_errors``).  A 404
        whose body is not the dialect's, and any 1xx to 3xx, come from something
        that is no such server: :class:`UpstreamProtocolError`.
    """
    said = parse_error(body)
    if status < HTTPStatus.BAD_REQUEST:
        return _not_an_api(status)
    if status == HTTPStatus.NOT_FOUND and said is None:
        return _not_an_api(status)
    return classify(
        said or ErrorBody(),
        http=status,
        retry_after_s=retry_after_s(headers, now_epoch_s=now_epoch_s),
        secret=secret,
    )


def _not_an_api(status: int) -> UpstreamProtocolError:
    return UpstreamProtocolError(
        f"the upstream answered {status} and not as the Gemini API does;"
        " check the deployment's endpoint",
        code="not_an_api",
        status=status,
    )
