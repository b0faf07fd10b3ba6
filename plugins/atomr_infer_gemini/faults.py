"""What an answer other than 200 means.

Pure: the wall clock is an argument.

Source: Gemini API guide, "Troubleshooting"; Vertex AI, "API errors".
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from atomr_infer.remote.http.retry_after import retry_after_s
from atomr_infer.wire.gemini.upstream_errors import ErrorBody, classify, parse_error
from atomr_infer.wire.wrong_place import is_about_the_path, not_an_api

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.errors import InferenceError
    from atomr_infer.model.secret import Secret
    from atomr_infer.wire.wrong_place import Place


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
        now_epoch_s: the wall clock, for ``retry-after`` as a date.
        secret: our key, blotted out should the upstream repeat it.
        place: who was asked.

    Returns:
        By reason, status word and status (see ``upstream_errors``).  A 404
        about the path, a 405, and any 1xx to 3xx come from something that is no
        such server: :class:`UpstreamProtocolError`.
    """
    said = parse_error(body)
    if status < HTTPStatus.BAD_REQUEST:
        return not_an_api(status, body, place)
    message, code = ("", None) if said is None else (said.message, said.reason or None)
    if is_about_the_path(status, message, code):
        return not_an_api(status, body, place)
    return classify(
        said or ErrorBody(),
        http=status,
        retry_after_s=retry_after_s(headers, now_epoch_s=now_epoch_s),
        secret=secret,
    )
