"""The head of a request: what is understood, what is refused and how."""

import attrs
import pytest

from atomr_infer.gateway.http1.head import (
    BadRequestError,
    HeadLimits,
    RequestHead,
    bad_start,
    parse_head,
)

LIMITS = HeadLimits(max_target_bytes=100, max_head_bytes=400, max_fields=5)


def parse(line: str, *fields: str) -> RequestHead:
    lines = [line, *(fields or ("host: here",))]
    return parse_head("".join(f"{line}\r\n" for line in lines).encode(), LIMITS)


def refused(line: str, *fields: str) -> tuple[int, str]:
    with pytest.raises(BadRequestError) as caught:
        parse(line, *fields)
    return caught.value.status, caught.value.message


def test_a_head_is_taken_apart() -> None:
    head = parse(
        "POST /v1/models/a%20b?alt=sse&key=%41 HTTP/1.1",
        "Host: here:80",
        "X-Both:  one two\t ",
        "Content-Length: 12",
    )
    assert attrs.asdict(head, filter=lambda field, _: field.name != "notes") == {
        "method": "POST",
        "path": "/v1/models/a b",
        "query": b"alt=sse&key=%41",
        "headers": [
            (b"host", b"here:80"),
            (b"x-both", b"one two"),
            (b"content-length", b"12"),
        ],
        "fields": {
            b"host": b"here:80",
            b"x-both": b"one two",
            b"content-length": b"12",
        },
        "http10": False,
        "keep_alive": True,
        "length": 12,
        "expect_continue": False,
        "upgrade": b"",
    }


@pytest.mark.parametrize(
    ("version", "connection", "keeps"),
    [
        ("1.1", "x-nothing: 1", True),
        ("1.1", "Connection: keep-alive, X-Nothing", True),
        ("1.1", "Connection: TE ,Close", False),
        ("1.0", "x-nothing: 1", False),
        ("1.0", "Connection: Keep-Alive", True),
        ("1.0", "Connection: keep-alive, close", False),
    ],
)
def test_a_connection_is_kept_when_the_client_would_keep_it(
    version: str, connection: str, *, keeps: bool
) -> None:
    head = parse(f"GET / HTTP/{version}", "host: here", connection)
    assert (head.keep_alive, head.http10) == (keeps, version == "1.0")


def test_two_connection_fields_are_one_list() -> None:
    head = parse(
        "GET / HTTP/1.1", "host: x", "connection: upgrade", "connection: close",
        "upgrade: WebSocket",
    )  # fmt: skip
    assert (head.keep_alive, head.upgrade) == (False, b"websocket")


def test_an_upgrade_that_the_connection_field_does_not_name_is_none() -> None:
    assert parse("GET / HTTP/1.1", "host: x", "upgrade: websocket").upgrade == b""


def test_of_a_field_that_comes_twice_the_first_counts() -> None:
    head = parse("GET / HTTP/1.1", "host: x", "x-key: one", "X-Key: two")
    assert head.fields == {b"host": b"x", b"x-key": b"one"}
    assert head.headers == [(b"host", b"x"), (b"x-key", b"one"), (b"x-key", b"two")]


def test_chunked_is_the_one_coding_that_is_taken() -> None:
    head = parse("POST / HTTP/1.1", "host: x", "Transfer-Encoding: Chunked")
    assert head.length is None


def test_a_client_may_ask_before_it_sends() -> None:
    asks = ("host: x", "Expect: 100-Continue")
    assert parse("POST / HTTP/1.1", *asks).expect_continue
    assert not parse("POST / HTTP/1.0", *asks).expect_continue
    status, _ = refused("POST / HTTP/1.1", "host: x", "expect: gold")
    assert status == 417


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("http://there/a?b", "/a", b"b"),
        ("HTTPS://there:1", "/", b""),
        ("http://there?b=/", "/", b"b=/"),
        ("//there/a", "//there/a", b""),
        ("/a?b?c", "/a", b"b?c"),
        ("/%C3%A9/%2F", "/é//", b""),
    ],
)
def test_a_target_is_path_and_query_in_each_form(
    target: str, path: str, query: bytes
) -> None:
    head = parse(f"GET {target} HTTP/1.1")
    assert (head.path, head.query) == (path, query)


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("CONNECT there:443 HTTP/1.1", 501),
        ("GET * HTTP/1.1", 400),
        ("GET there HTTP/1.1", 400),
        ("GET http://a@\\b/ HTTP/1.1", 400),
        ("GET /%0Aforged HTTP/1.1", 400),
        ("GET /%00 HTTP/1.1", 400),
        ("GET /é HTTP/1.1", 400),
        ("GET / HTTP/2.0", 505),
        ("GET / HTTP/1.2", 505),
        ("GET / HTTP/1", 505),
        ("GET /", 400),
        ("GET  / HTTP/1.1", 400),
        ("GET /  HTTP/1.1", 400),
        ("GET\t/ HTTP/1.1", 400),
        (" GET / HTTP/1.1", 400),
        ("GET / HTTP/1.1 ", 400),
        ("GET / http/1.1", 400),
        ("G(T / HTTP/1.1", 400),
        ("", 400),
        ("/" * 101, 414),
    ],
)
def test_a_line_that_is_no_request_is_refused(line: str, status: int) -> None:
    assert refused(line)[0] == status


def test_options_may_ask_about_the_server() -> None:
    assert parse("OPTIONS * HTTP/1.1").path == "*"


@pytest.mark.parametrize("host", ["a b", "a/b", "a@b", "é", 'a"b', "<x>"])
def test_a_host_that_is_none_is_refused(host: str) -> None:
    assert refused("GET / HTTP/1.1", f"host: {host}")[0] == 400


def test_an_http11_request_needs_one_host_and_an_http10_request_none() -> None:
    nothing = "x-nothing: 1"
    assert refused("GET / HTTP/1.1", nothing)[0] == 400
    assert refused("GET / HTTP/1.1", "host: a", "Host: a")[0] == 400
    assert parse("GET / HTTP/1.0", nothing).path == "/"


def test_too_many_fields_are_a_431() -> None:
    fields = [f"x-{number}: 1" for number in range(5)]
    assert refused("GET / HTTP/1.1", "host: x", *fields)[0] == 431


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nhost: x", None),
        (b"GET / HTTP/1.1\r", None),
        (b"GET / HTTP/1.1\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\n\n", 400),
        (b"GET /" + b"a" * 100, 414),
        (b"GET /" + b"a" * 400, 414),
        (b"GET / HTTP/1.1\r\nx: " + b"a" * 400, 431),
    ],
)
def test_a_head_that_can_only_become_a_bad_one_is_refused_early(
    data: bytes, status: int | None
) -> None:
    problem = bad_start(data, LIMITS)
    assert (problem and problem.status) == status
