"""Fetching what a client named by URL, from a real server on loopback."""

from __future__ import annotations

import base64
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from atomr_infer.errors import InvalidRequestError
from atomr_infer.model.parts import Inline
from atomr_infer.policy.fetch_rules import ForbiddenUrlError, check_address
from atomr_infer.remote.media import MediaLimits, fetch_media

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)


def answer(status: int, body: bytes = b"", **headers: str) -> bytes:
    fields = "".join(
        f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()
    )
    head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n{fields}\r\n"
    return head.encode() + body


@asynccontextmanager
async def serving(answers: dict[str, bytes]) -> AsyncIterator[tuple[str, list[str]]]:
    """Serve answers by path; yields the server's URL and what was asked for."""
    asked: list[str] = []

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            request = b""
            while b"\r\n\r\n" not in request:
                piece = await stream.receive_some()
                if not piece:
                    return
                request += bytes(piece)
            path = request.split()[1].decode()
            asked.append(path)
            if path in answers:
                await stream.send_all(answers[path])
            else:
                await trio.sleep_forever()

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handle, listeners)
        yield f"http://127.0.0.1:{port}", asked
        nursery.cancel_scope.cancel()


def anywhere(_: str) -> None:
    """Allow the loopback that tests run on."""


async def refusal(
    url: str,
    *,
    check: Callable[[str], None] = anywhere,
    limits: MediaLimits | None = None,
) -> str:
    with pytest.raises(InvalidRequestError) as raised:
        await fetch_media(url, check=check, limits=limits or MediaLimits())
    assert raised.value.code == "invalid_image_url"
    return raised.value.message


async def test_a_picture_comes_with_the_type_that_its_bytes_show() -> None:
    lying = answer(200, PNG, content_type="text/html")
    async with serving({"/a?b=1": lying}) as (url, asked):
        found = await fetch_media(f"{url}/a?b=1", check=anywhere)
    assert found == Inline("image/png", base64.b64encode(PNG).decode())
    assert asked == ["/a?b=1"]


async def test_redirects_are_followed_relative_ones_too_but_not_for_ever() -> None:
    answers = {
        "/a": answer(302, location="/b"),
        "/b": answer(301, location="c"),
        "/c": answer(200, PNG),
        "/loop": answer(302, location="/loop"),
    }
    async with serving(answers) as (url, _):
        assert (await fetch_media(f"{url}/a", check=anywhere)).media_type == "image/png"
        assert "redirects more than 3 times" in await refusal(f"{url}/loop")


async def test_a_private_address_is_never_connected_to() -> None:
    async with serving({"/a": answer(200, PNG)}) as (url, asked):
        assert "not public" in await refusal(f"{url}/a", check=check_address)
        by_name = url.replace("127.0.0.1", "localhost")
        assert "not public" in await refusal(f"{by_name}/a", check=check_address)
    assert asked == []


async def test_the_target_of_a_redirect_is_judged_anew() -> None:
    async with (
        serving({"/secret": answer(200, PNG)}) as (inside, asked),
        serving({"/a": answer(302, location=f"{inside}/secret")}) as (outside, _),
    ):
        judged = []

        def only_the_first(address: str) -> None:
            judged.append(address)
            if len(judged) > 1:
                raise ForbiddenUrlError("it leads to an address that is not public")

        assert "not public" in await refusal(f"{outside}/a", check=only_the_first)
    assert asked == []
    assert judged == ["127.0.0.1", "127.0.0.1"]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/404", "answered 404"),
        ("/text", "no picture"),
        ("/large", "larger than 100 bytes"),
        ("/nowhere", "redirects to nowhere"),
        ("/file", "only http and https"),
    ],
)
async def test_what_cannot_be_used_is_the_clients_error(path: str, why: str) -> None:
    answers = {
        "/404": answer(404),
        "/text": answer(200, b"<html>"),
        "/large": answer(200, PNG * 2),
        "/nowhere": answer(302),
        "/file": answer(302, location="file:///etc/passwd"),
    }
    async with serving(answers) as (url, _):
        message = await refusal(url + path, limits=MediaLimits(max_bytes=100))
    assert why in message
    assert url not in message


async def test_a_server_that_is_silent_is_given_up() -> None:
    async with serving({}) as (url, _):
        limits = MediaLimits(timeout_s=0.05)
        assert "did not come within 0.05 s" in await refusal(f"{url}/a", limits=limits)


@pytest.mark.parametrize(
    "url",
    [
        "http://a b/x.png",
        "http://\u0661.example/x.png",
        "http://x/\u00fc.png",
        "http://a,b/",
    ],
)
async def test_a_url_that_no_request_can_carry_is_the_clients_fault(url: str) -> None:
    with pytest.raises(InvalidRequestError, match="could not be used") as caught:
        await fetch_media(url, check=_refuse)
    assert url not in caught.value.message


async def test_a_redirect_to_no_url_is_the_clients_fault() -> None:
    async with serving({"/a": answer(302, location="http://a b/x")}) as (url, _):
        with pytest.raises(InvalidRequestError, match="not a URL that can be asked"):
            await fetch_media(f"{url}/a", check=anywhere)


def _refuse(_: str) -> None:
    raise ForbiddenUrlError("nothing is asked in this test")
