"""The head of an answer, and what it says of its body."""

from __future__ import annotations

import pytest

from atomr_infer.gateway.http1.answer import AnswerHead, answer_head

DATE = b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
SIZED = [(b"content-length", b"2")]


def head(
    headers: list[tuple[bytes, bytes]], status: int = 200, **told: bool
) -> tuple[bytes, AnswerHead]:
    asked = {"http10": False, "bodiless": False, "close": False, **told}
    made = answer_head(status, headers, date=DATE, **asked)
    start = b"HTTP/1.1 200 OK\r\n" + DATE
    return made.data.removeprefix(start), made


def test_a_sized_body_is_sent_as_it_is() -> None:
    data, made = head(SIZED)
    assert data == b"content-length: 2\r\n\r\n"
    assert (made.chunked, made.bodiless, made.left, made.close) == (
        False, False, 2, False,
    )  # fmt: skip


def test_a_body_of_unknown_size_is_chunked() -> None:
    data, made = head([(b"x-a", b"1")])
    assert data == b"x-a: 1\r\ntransfer-encoding: chunked\r\n\r\n"
    assert (made.chunked, made.left, made.close) == (True, None, False)


def test_for_http10_a_body_of_unknown_size_ends_with_the_connection() -> None:
    data, made = head([], http10=True)
    assert data == b"connection: close\r\n\r\n"
    assert (made.chunked, made.left, made.close) == (False, None, True)


def test_an_http10_client_is_told_that_its_connection_is_kept() -> None:
    data, made = head(SIZED, http10=True)
    assert data == b"content-length: 2\r\nconnection: keep-alive\r\n\r\n"
    assert not made.close


@pytest.mark.parametrize("asked", [{"close": True}, {}])
def test_a_close_is_said_once_whoever_wants_it(asked: dict[str, bool]) -> None:
    data, made = head([*SIZED, (b"connection", b"close")], **asked)
    assert data == b"content-length: 2\r\nconnection: close\r\n\r\n"
    assert made.close


@pytest.mark.parametrize(
    ("status", "told"), [(204, {}), (304, {}), (200, {"bodiless": True})]
)
def test_an_answer_without_a_body_is_not_framed(
    status: int, told: dict[str, bool]
) -> None:
    data, made = head([], status, **told)
    assert data.endswith(b"GMT\r\n\r\n") or data == b"\r\n"
    assert (made.chunked, made.bodiless, made.left) == (False, True, 0)


def test_a_status_without_a_name_is_sent_all_the_same() -> None:
    _, made = head(SIZED, 529)
    assert made.data.startswith(b"HTTP/1.1 529 \r\n")


@pytest.mark.parametrize("value", [b"a\r\nx-evil: 1", b"a\nb", b"a\rb"])
def test_a_line_break_in_a_field_is_a_bug_of_ours(value: bytes) -> None:
    with pytest.raises(ValueError, match="line break"):
        head([*SIZED, (b"x-a", value)])
