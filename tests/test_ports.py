"""Another port is tried where one is in use, and for no other reason."""

from __future__ import annotations

import errno
import socket

import pytest

from tests import ports


class Draws:
    """Ports that are drawn by hand."""

    def __init__(self, *drawn: int) -> None:
        self._drawn = list(drawn)

    def randrange(self, _first: int, _behind: int) -> int:
        return self._drawn.pop(0)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2"])
def test_one_that_is_in_use_is_not_given(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "_kept", [])
    with socket.socket() as taken, socket.socket() as found:
        taken.bind((host, 0))
        found.bind(("127.0.0.1", 0))
        used, free = taken.getsockname()[1], found.getsockname()[1]
        found.close()
        monkeypatch.setattr(ports, "_random", Draws(used, free))
        assert ports.free_port() == free
        (keeper,) = ports._kept
        keeper.close()


def test_what_no_other_port_would_mend_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of no interface: RFC 5737, section 3.
    monkeypatch.setattr(ports, "_BESIDE", "192.0.2.1")
    monkeypatch.setattr(ports, "_random", Draws(ports._FIRST))
    with pytest.raises(OSError, match="assign") as caught:
        ports.free_port()
    assert caught.value.errno == errno.EADDRNOTAVAIL
