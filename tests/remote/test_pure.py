from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_infer.remote.http.idle import IdleLimits, IdleList
from atomr_infer.remote.http.origin import BaseUrl, Origin, parse_base_url
from atomr_infer.remote.http.retry_after import retry_after_s


@pytest.mark.parametrize(
    ("text", "url", "authority"),
    [
        ("http://h", BaseUrl(Origin("http", "h", 80), ""), "h"),
        ("https://h/v1/", BaseUrl(Origin("https", "h", 443), "/v1"), "h"),
        ("https://h:80/a/b", BaseUrl(Origin("https", "h", 80), "/a/b"), "h:80"),
        ("HTTP://H:80/", BaseUrl(Origin("http", "h", 80), ""), "h"),
        ("http://[::1]:8/v1", BaseUrl(Origin("http", "::1", 8), "/v1"), "[::1]:8"),
    ],
)
def test_base_url_is_taken_apart(text: str, url: BaseUrl, authority: str) -> None:
    assert parse_base_url(text) == url
    assert url.origin.authority == authority


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not a URL"),
        ("api.openai.com/v1", "does not start with http"),
        ("ftp://h", "does not start with http"),
        ("http://", "names no host"),
        ("http://h:99999", "not a URL"),
        ("http://h:x", "not a URL"),
        ("http://h:0", "port 0"),
        ("http://h?a=b", "query"),
        ("http://h#f", "fragment"),
        ("http://hé", "visible ASCII"),
        ("http://h/a b", "visible ASCII"),
        ("http://h\n", "visible ASCII"),
        ("http://[::1", "not a URL"),
    ],
)
def test_base_url_that_cannot_be_used_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_base_url(text)


def test_password_in_a_base_url_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match="no user or password") as caught:
        parse_base_url("http://user:sk-secret@h")
    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": "1e308"}, None),
        ({"retry-after": "1_0"}, None),
        ({"retry-after": "9" * 5000}, 86400.0),
        ({"retry-after-ms": "86400001"}, 86400.0),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, 86400.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after-ms": "x", "retry-after": "2"}, 2.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 90.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40"}, 90.0),
        ({"retry-after": "Thu, 01 Jan 1970 02:01:40 +0200"}, 90.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:01 GMT"}, 0.0),
        ({"retry-after": "Thu, 99 Jan 1970 00:00:01 GMT"}, None),
        ({"retry-after": "Thu, 01 Jan 99999999999 00:00:01 GMT"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after_s(headers, now_epoch_s=10.0) == expected


@given(st.text())
def test_no_retry_after_header_is_an_error(text: str) -> None:
    wait = retry_after_s({"retry-after": text}, now_epoch_s=10.0)
    assert wait is None or wait >= 0


def test_newest_connection_is_taken_first() -> None:
    idle: IdleList[str] = IdleList(IdleLimits())
    idle.put("a", 1.0)
    idle.put("b", 2.0)
    assert idle.take(3.0) == ("b", ())
    assert idle.take(3.0) == ("a", ())
    assert idle.take(3.0) == (None, ())


_STEPS = st.lists(st.tuples(st.booleans(), st.integers(0, 8)), max_size=40)


@given(_STEPS, st.integers(0, 4))
def test_idle_list_agrees_with_a_naive_model(
    steps: list[tuple[bool, int]], max_idle: int
) -> None:
    idle: IdleList[int] = IdleList(IdleLimits(max_idle=max_idle, max_age_s=10.0))
    model: list[tuple[float, int]] = []
    now = 0.0
    for number, (put, wait) in enumerate(steps):
        now += wait
        if put:
            model.append((now, number))
            kept = (
                [e for e in model[-max_idle:] if now - e[0] <= 10] if max_idle else []
            )
            gone = idle.put(number, now)
            assert gone == tuple(n for at, n in model if (at, n) not in kept)
            model = kept
        else:
            alive = bool(model) and now - model[-1][0] <= 10
            expected = model.pop()[1] if alive else None
            closed = () if alive else tuple(n for _, n in model)
            model = model if alive else []
            assert idle.take(now) == (expected, closed)
        assert len(idle) == len(model)
