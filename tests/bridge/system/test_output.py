"""A child's output becomes clean, bounded log lines."""

from __future__ import annotations

from atomr_infer.bridge.system.output import (
    BURST_LINES,
    LINES_PER_S,
    MAX_LINE_BYTES,
    TAIL_LINES,
    OutputLog,
)


def test_lines_are_cut_at_newlines_and_carriage_returns() -> None:
    log = OutputLog(0.0)
    assert log.feed(b"one\ntw", 0.0) == ["one"]
    assert log.feed(b"o\r\n 10%\r 20%\r\n\n", 0.0) == ["two", " 10%", " 20%"]
    assert log.feed(b"rest", 0.0) == []
    assert log.finish(0.0) == ["rest"]


def test_colours_titles_and_control_characters_are_taken_out() -> None:
    log = OutputLog(0.0)
    line = (
        b"\x1b[2m2026\x1b[0m \x1b[32m INFO\x1b[0m\x1b]0;title\x07 a\tb\x08\x00\x1b[K\n"
    )
    assert log.feed(line, 0.0) == ["2026  INFO a\tb"]


def test_escapes_split_over_two_reads_are_taken_out() -> None:
    log = OutputLog(0.0)
    assert log.feed(b"\x1b[3", 0.0) == []
    assert log.feed(b"2mok\n", 0.0) == ["ok"]


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    assert OutputLog(0.0).feed(b"a\xffb\n", 0.0) == ["a\ufffdb"]


def test_endless_line_is_cut_and_takes_no_memory() -> None:
    log = OutputLog(0.0)
    for _ in range(100):
        assert log.feed(b"x" * MAX_LINE_BYTES, 0.0) == []
    assert len(log._line) == MAX_LINE_BYTES
    assert log.feed(b"\nnext\n", 0.0) == [
        "x" * MAX_LINE_BYTES + f" ... ({99 * MAX_LINE_BYTES} more bytes)",
        "next",
    ]


def test_flood_is_held_back_and_counted() -> None:
    log = OutputLog(0.0)
    flood = b"line\n" * (BURST_LINES + 7)
    assert log.feed(flood, 0.0) == ["line"] * BURST_LINES
    later = 2 / LINES_PER_S
    assert log.feed(b"a\nb\nc\n", later) == [
        "... 7 lines left out: too many at once",
        "a",
        "b",
    ]
    assert log.finish(later) == ["... 1 lines left out: too many at once"]


def test_tail_keeps_the_last_lines_even_of_a_flood() -> None:
    log = OutputLog(0.0)
    log.feed(b"".join(b"%d\n" % n for n in range(5000)), 0.0)
    assert log.tail == tuple(str(n) for n in range(5000 - TAIL_LINES, 5000))


def test_those_of_the_last_lines_that_were_held_back_are_known() -> None:
    log = OutputLog(0.0)
    log.feed(b"shown\n" * BURST_LINES + b"first\nsecond\n", 0.0)
    log.feed(b"after\n", 1 / LINES_PER_S)
    assert log.held_back == ("first", "second")
    assert log.tail[-4:] == ("shown", "first", "second", "after")
