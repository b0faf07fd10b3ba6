"""What nodes tell each other of their replicas."""

from __future__ import annotations

import msgspec
import pytest

from atomr_infer.wire.nodes import loads
from atomr_infer.wire.nodes.loads import Entry, Load, Loads, changed, entry_of


def test_only_what_has_changed_is_told() -> None:
    before = (Load("m", 0, 1, 10, 4), Load("m", 1, 2, 20, 4), Load("gone", 0))
    now = (Load("m", 0, 1, 10, 4), Load("m", 1, 3, 30, 4), Load("new", 0))
    assert changed(before, now) == (now[1], now[2])
    assert changed((), now) == now
    assert changed(now, now) == ()


def test_one_message_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loads, "MAX_LOADS", 3)
    many = tuple(Load("m", number) for number in range(9))
    assert changed((), many) == many[:3]


def test_loads_arrive_as_they_were_told() -> None:
    told = Loads((Load("m", 0, 3, 400, 8, 0.25), Load("n", 1)))
    data = msgspec.msgpack.encode(told)
    assert msgspec.msgpack.decode(data, type=Loads) == told
    assert len(data) < 60


@pytest.mark.parametrize(
    "written",
    [
        {"phase": "serving"},
        {"phase": 3, "version": "v"},
        {"phase": "serving", "version": "v", "more": 1},
        "serving",
        None,
    ],
)
def test_what_another_version_has_written_is_passed_over(written: object) -> None:
    assert entry_of(written) is None


def test_an_entry_is_what_was_written() -> None:
    entry = Entry("serving", "v")
    assert entry_of(msgspec.to_builtins(entry)) == entry
