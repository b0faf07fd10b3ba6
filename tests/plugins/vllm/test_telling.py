"""How far the weights are loaded is heard from the workers that load them."""

from __future__ import annotations

import os
import tempfile
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from trio.testing import wait_all_tasks_blocked

from atomr_infer.errors import EngineStartError
from atomr_infer.runtimes.contract import Progress
from atomr_infer_vllm import telling
from atomr_infer_vllm.listening import listening
from atomr_infer_vllm.telling import LISTENER, count_weights

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


CUSHION_S = 0.05


class Loader:
    """As vLLM's: gives a model its weights one by one."""

    def __init__(self, *sizes: int) -> None:
        self.sizes = sizes

    def get_all_weights(
        self, config: object, *, model: object
    ) -> Iterator[tuple[str, Any]]:
        for size in self.sizes:
            yield f"{config} {model}", SimpleNamespace(nbytes=size)


def counted(listener: str) -> type[Loader]:
    kind = type("Counted", (Loader,), {})
    count_weights(kind, listener)
    return kind


def weights(loader: Loader) -> list[tuple[str, int]]:
    found = loader.get_all_weights("c", model="m")
    return [(name, tensor.nbytes) for name, tensor in found]


async def test_bytes_are_told_as_they_pass_and_what_comes_behind_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(telling, "TELL_EVERY_S", 0.0)
    seen: list[Progress] = []
    async with listening(seen.append, 100):
        loader = counted(os.environ[LISTENER])(10, 30, 70)
        assert weights(loader) == [("c m", 10), ("c m", 30), ("c m", 70)]
        await wait_all_tasks_blocked(CUSHION_S)
    assert LISTENER not in os.environ
    assert seen == [
        *(Progress("loading the weights", done, 100) for done in (10, 40, 100)),
        Progress("warming up"),
    ]
    # Nobody listens any more, and the weights come as they did.
    assert weights(loader) == [("c m", 10), ("c m", 30), ("c m", 70)]


async def test_of_a_spread_model_the_worker_that_is_ahead_counts_and_all_must_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(telling, "TELL_EVERY_S", 0.0)
    seen: list[Progress] = []
    pid = 1
    monkeypatch.setattr(os, "getpid", lambda: pid)
    async with listening(seen.append, None):
        kind = counted(os.environ[LISTENER])
        slow = kind(1, 1).get_all_weights("c", model="m")
        next(slow)
        pid = 2
        weights(kind(5, 5))
        pid = 1
        list(slow)
        await wait_all_tasks_blocked(CUSHION_S)
    told = [(each.phase, each.done, each.total) for each in seen]
    assert told == [
        *(("loading the weights", done, None) for done in (1, 5, 10, 10, 10)),
        ("warming up", None, None),
    ]


@pytest.mark.parametrize("place", ["x" * 100, "missing"])
async def test_without_room_for_a_socket_it_goes_on_and_says_so_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    place: str,
) -> None:
    folder = tmp_path / place
    if place != "missing":
        folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with pytest.raises(OSError, match="of the start"):
        async with listening(lambda _: None, 1):
            assert LISTENER not in os.environ
            raise OSError("of the start")
    assert [each.levelname for each in caplog.records] == ["WARNING"]
    assert "how far the weights are loaded is not shown" in caplog.text
    assert not folder.exists() or not list(folder.iterdir())


async def test_what_fails_meanwhile_leaves_it_bare() -> None:
    with pytest.raises(EngineStartError, match="no memory"):
        async with listening(lambda _: None, 1):
            raise EngineStartError("no memory")
    assert LISTENER not in os.environ


def test_a_loader_of_another_kind_is_left_as_it_is(tmp_path: Path) -> None:
    kind = type("Other", (), {})
    count_weights(kind, str(tmp_path / "news"))
    assert not hasattr(kind, "get_all_weights")
