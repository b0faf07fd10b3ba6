"""Memory of caches that grow is given back before it is wanted elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest

from atomr_infer_tensorrt.arena import Arena, Held, stepped
from tests.plugins.tensorrt.test_models import bare, greedy

if TYPE_CHECKING:
    from pathlib import Path

    from atomr_infer_tensorrt.plan import Device, Stream
    from tests.plugins.tensorrt.conftest import Opener
    from tests.plugins.tensorrt.host import HostBackend

TENSORS = 60
ROW_BYTES = 3 * 64 * 4  # of a token, in one of SmolLM2-135M's tensors


@attrs.define
class Counted:
    """A device that only counts, with its stream."""

    live_bytes: int = 0
    most_bytes: int = 0
    given: dict[int, int] = attrs.field(factory=dict)
    log: list[str] = attrs.field(factory=list)

    def allocate(self, size_bytes: int) -> int:
        address = 1 + len(self.log)
        self.log.append("allocate")
        self.given[address] = size_bytes
        self.live_bytes += size_bytes
        self.most_bytes = max(self.most_bytes, self.live_bytes)
        return address

    def release(self, address: int) -> None:
        self.log.append("release")
        self.live_bytes -= self.given.pop(address)

    def wait(self) -> None:
        self.log.append("wait")


def arena_of(device: Counted) -> Arena:
    return Arena(as_device(device), as_stream(device))


def as_device(device: Counted) -> Device:
    return device  # type: ignore[return-value] # no more of it is asked


def as_stream(device: Counted) -> Stream:
    return device  # type: ignore[return-value] # as above


def grow(arena: Arena, *, rows: int, tokens: int) -> list[Held]:
    """Have a cache grow as steps do: the new one is taken beside the old one."""
    cache = [arena.take(0) for _ in range(TENSORS)]
    for width in range(1, tokens + 1, 16):
        cache = [arena.take(rows * width * ROW_BYTES) for _ in range(TENSORS)]
    return cache


def test_a_cache_that_grows_holds_little_more_than_itself_twice() -> None:
    device = Counted()
    arena = arena_of(device)
    whole = 16 * 8192 * ROW_BYTES * TENSORS
    arena.budget_bytes = 2 * whole * 9 // 8
    cache = grow(arena, rows=16, tokens=8192)
    assert cache
    assert device.most_bytes <= arena.budget_bytes
    assert arena.held_bytes == device.live_bytes
    # In a budget, memory is used again and not asked for in each step.
    assert device.log.count("allocate") < 100 * TENSORS


def test_what_is_in_use_may_be_more_than_the_budget_and_nothing_of_it_goes() -> None:
    device = Counted()
    arena = arena_of(device)
    arena.budget_bytes = 1000
    held = [arena.take(size) for size in (512, 1024, 2048)]
    assert device.log == ["allocate"] * 3
    del held[0]
    held.append(arena.take(4096))
    # Nothing that was begun may still use what is given back.
    assert device.log[3:] == ["wait", "release", "allocate"]
    assert arena.held_bytes == device.live_bytes == 1024 + 2048 + 4096


def test_no_more_is_given_back_than_has_to_be_and_what_was_first_goes_first() -> None:
    device = Counted()
    arena = arena_of(device)
    arena.budget_bytes = 3 * 1024
    [arena.take(512), arena.take(1024)]
    held = arena.take(2048)
    assert held.address in device.given
    assert sorted(device.given.values()) == [1024, 2048]
    arena.trim()
    assert sorted(device.given.values()) == [2048]
    waited = device.log.count("wait")
    arena.trim()
    assert device.log.count("wait") == waited


@pytest.mark.parametrize("size", [0, 1, 255, 65_536, 65_537, 1 << 20, 12_345_678])
def test_an_eighth_of_large_memory_is_unused_at_most(size: int) -> None:
    taken = stepped(size)
    assert taken >= size
    assert stepped(taken) == taken
    assert size <= 65_536 or taken <= size * 9 / 8


async def test_a_device_that_refuses_is_given_what_is_unused_and_asked_again(
    opened: Opener, llama_folder: Path, backend: HostBackend
) -> None:
    async def wanted_by_a_long_answer() -> int:
        before = backend.device.left
        async with runner.execute(bare("hello", max_tokens=100)) as chunks:
            said = "".join([chunk.text async for chunk in chunks])
        assert said == greedy("hello", 100)
        return before - backend.device.left

    async with opened(llama_folder) as runner:
        needed = await wanted_by_a_long_answer()
    assert needed > 0
    async with opened(llama_folder) as runner:
        backend.device.left = needed - 1
        await wanted_by_a_long_answer()
