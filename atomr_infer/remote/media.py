"""Fetch a picture or a document that a client named by URL.

Only for providers that want bytes.  What may be fetched is decided by
``atomr_infer.policy.fetch_rules``; this resolves the name itself and connects
to the address that was judged, so that a second answer of the resolver cannot
lead elsewhere.  Each redirect is a new URL and is judged as one.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import attrs
import trio

from atomr_infer.errors import InferenceError, InvalidRequestError
from atomr_infer.model.parts import Inline
from atomr_infer.policy.fetch_rules import (
    MAX_REDIRECTS,
    FetchTarget,
    ForbiddenUrlError,
    check_address,
    fetch_target,
)
from atomr_infer.remote.http.client import HttpClient
from atomr_infer.remote.http.dialing.tls import verifying_context
from atomr_infer.remote.http.phases import HttpTimeouts
from atomr_infer.wire.sniff import sniff

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr_infer.remote.http.dialing.tcp import Connect
    from atomr_infer.remote.http.origin import Origin
    from atomr_infer.remote.http.response import HttpResponse

MAX_MEDIA_BYTES = 20 * 1024 * 1024
"""Default cap of one file; the largest that the providers take inline."""

_OK = 200
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@attrs.frozen(kw_only=True)
class MediaLimits:
    """What is fetched at most.

    Attributes:
        max_bytes: of one file.
        timeout_s: for one file, redirects included.
    """

    max_bytes: int = MAX_MEDIA_BYTES
    timeout_s: float = 20.0


_DEFAULT_LIMITS = MediaLimits()


async def fetch_media(
    url: str,
    *,
    limits: MediaLimits = _DEFAULT_LIMITS,
    check: Callable[[str], None] = check_address,
) -> Inline:
    """Return what a URL holds.

    Args:
        url: the client's.
        limits: what is fetched at most.
        check: refuses an address with :class:`ForbiddenUrlError`.

    Raises:
        InvalidRequestError: it may not be fetched, is not there, is too large,
            or is neither a picture nor a PDF.

    Cancellation: closes the connection.
    """
    try:
        with trio.fail_after(limits.timeout_s):
            data = await _follow(url, limits, check)
    except trio.TooSlowError as error:
        raise _refused(f"it did not come within {limits.timeout_s:g} s") from error
    except ForbiddenUrlError as error:
        raise _refused(str(error)) from error
    text = base64.b64encode(data).decode("ascii")
    # What its server calls it may be wrong, and a wrong type is a common refusal.
    kind = sniff(text)
    if kind is None:
        raise _refused("it is no picture, sound or PDF that is known")
    return Inline(kind, text)


def _refused(why: str) -> InvalidRequestError:
    # The URL may hold a signature that is a secret of the client's, so only
    # the reason is told.
    return InvalidRequestError(
        f"a URL in the messages could not be used: {why}", code="invalid_image_url"
    )


async def _follow(url: str, limits: MediaLimits, check: Callable[[str], None]) -> bytes:
    for _ in range(MAX_REDIRECTS + 1):
        target = fetch_target(url)
        found = await _get(target, limits, check)
        if isinstance(found, bytes):
            return found
        url = urljoin(url, found)
    raise _refused(f"it redirects more than {MAX_REDIRECTS} times")


async def _get(
    target: FetchTarget, limits: MediaLimits, check: Callable[[str], None]
) -> bytes | str:
    """Return the body, or where it redirects to."""
    timeouts = HttpTimeouts(
        connect_s=limits.timeout_s,
        write_s=limits.timeout_s,
        head_s=limits.timeout_s,
        idle_s=limits.timeout_s,
    )
    headers = [
        ("accept", "image/*, audio/*, application/pdf"),
        ("accept-encoding", "identity"),
        ("user-agent", "atomr-infer"),
    ]
    try:
        client = HttpClient(
            target.base_url,
            headers=headers,
            timeouts=timeouts,
            connect=_judged_connect(check),
        )
        async with client, client.request("GET", target.path) as response:
            return await _read(response, limits)
    except (ForbiddenUrlError, InvalidRequestError):
        raise
    except InferenceError as error:
        raise _refused(error.message) from error
    except ValueError as error:
        raise _refused("it is not a URL that can be asked for") from error


async def _read(response: HttpResponse, limits: MediaLimits) -> bytes | str:
    if response.status in _REDIRECTS:
        location = response.headers.get("location")
        if location is None:
            raise _refused("it redirects to nowhere")
        return location
    if response.status != _OK:
        raise _refused(f"its server answered {response.status}")
    data = bytearray()
    async for piece in response.iter_bytes():
        data += piece
        if len(data) > limits.max_bytes:
            raise _refused(f"it is larger than {limits.max_bytes} bytes")
    return bytes(data)


def _judged_connect(check: Callable[[str], None]) -> Connect:
    async def connect(origin: Origin) -> trio.abc.Stream:
        found = await trio.socket.getaddrinfo(
            origin.host, origin.port, type=trio.socket.SOCK_STREAM
        )
        addresses = [str(each[4][0]) for each in found]
        # All of them: one bad address among good ones is an attack, or a mistake.
        for address in addresses:
            check(address)
        stream = await trio.open_tcp_stream(addresses[0], origin.port)
        if not origin.tls:
            return stream
        tls = trio.SSLStream(
            stream,
            verifying_context(),
            server_hostname=origin.host,
            https_compatible=True,
        )
        try:
            await tls.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(tls)
            raise
        return tls

    return connect
