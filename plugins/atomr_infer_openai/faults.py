"""What an answer other than 200 means.

Pure: the wall clock is an argument.

Source: OpenAI API guide, "Error codes".
"""

from __future__ import annotations

from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

from atomr_infer.errors import InferenceError, UpstreamProtocolError
from atomr_infer.remote.retry_after import retry_after_s
from atomr_infer.wire.openai.upstream_errors import ErrorBody, classify, parse_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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
        By ``code`` and status (see ``upstream_errors``).  A 404 whose body is
        not the dialect's, and any 1xx to 3xx, come from something that is not
        such a server: :class:`UpstreamProtocolError`.
    """
    said = parse_error(body)
    if status < HTTPStatus.BAD_REQUEST:
        return _not_an_api(status)
    if status == HTTPStatus.NOT_FOUND and said is None:
        return _not_an_api(status)
    return classify(
        said or ErrorBody(),
        status=status,
        retry_after_s=retry_after_s(headers, now_epoch_s=now_epoch_s),
        secret=secret,
    )


@contextmanager
def without_secret(secret: Secret | None) -> Iterator[None]:
    """Blot our key out of every error that leaves the block.

    An upstream can repeat the key wherever its bytes go.  Message, code and
    param are blotted; a cause that shows the key is cut off, as a log would
    print it.
    """
    try:
        yield
    except InferenceError as error:
        if secret is not None:
            _blot(error, secret)
        raise


def _blot(error: InferenceError, secret: Secret) -> None:
    error.message = secret.blot(error.message)
    error.args = (error.message,)
    if error.code is not None:
        error.code = secret.blot(error.code)
    if error.param is not None:
        error.param = secret.blot(error.param)
    for cause in _causes(error):
        shown = f"{cause} {cause!r}"
        if secret.blot(shown) != shown:
            error.__cause__ = error.__context__ = None
            return


def _causes(error: BaseException) -> Iterator[BaseException]:
    for cause in (error.__cause__, error.__context__):
        if cause is not None:
            yield cause
            yield from _causes(cause)


def wrong_content_type() -> UpstreamProtocolError:
    """Return the error for a 200 that holds neither JSON nor events."""
    return UpstreamProtocolError(
        "the upstream's content-type is neither application/json nor"
        " text/event-stream; check the deployment's endpoint",
        code="wrong_content_type",
        status=int(HTTPStatus.OK),
    )


def encoded() -> UpstreamProtocolError:
    """Return the error for a 200 whose body is compressed, unasked."""
    return UpstreamProtocolError(
        "the upstream's answer has a content-encoding, though none was asked for;"
        " switch compression off at the upstream or its proxy",
        code="content_encoding",
        status=int(HTTPStatus.OK),
    )


def _not_an_api(status: int) -> UpstreamProtocolError:
    return UpstreamProtocolError(
        f"the upstream answered {status} and not as an OpenAI-like API does;"
        " check the deployment's endpoint",
        code="not_an_api",
        status=status,
    )
