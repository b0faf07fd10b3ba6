"""A plan is built once for all that it depends on, and never found damaged."""

from __future__ import annotations

import os
import resource
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest

from atomr_infer_tensorrt.cache import PlanCache, cache_folder
from atomr_infer_tensorrt.plan import Identity
from atomr_infer_tensorrt.recipe import Precision, Recipe, key_of
from atomr_infer_tensorrt.shapes import Range

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOMY = 1 << 30
IDENTITY = Identity(library="tensorrt", version="11.4", device="H100 9.0")
RECIPE = Recipe(profiles=({"x": Range((1,), (2,), (4,))},))


def test_what_was_kept_is_found(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path / "plans", ROOMY)
    assert cache.find("k") is None
    cache.keep("k", b"\nplan\n\n", {"model": "m"})
    assert PlanCache(tmp_path / "plans", ROOMY).find("k") == b"\nplan\n\n"
    assert cache.find("other") is None


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[:-1], lambda b: b[:-1] + b"?", lambda b: b"", lambda b: b"{" + b],
    ids=["cut", "changed", "empty", "no line"],
)
def test_a_damaged_plan_is_not_found(
    tmp_path: Path, damage: Mapping[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    cache = PlanCache(tmp_path, ROOMY)
    cache.keep("k", b"plan", {})
    [path] = tmp_path.glob("*.kept-plan")
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    assert cache.find("k") is None
    assert str(path) in caplog.text


def test_the_plans_that_were_not_used_for_the_longest_make_room(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path, 2500)
    for age, key in ((3000, "old"), (2000, "older but used"), (1000, "young")):
        cache.keep(key, bytes(700), {})
        path = tmp_path / f"{key}.kept-plan"
        then = path.stat().st_mtime - age
        os.utime(path, (then, then))
    assert cache.find("old") is not None  # it is used now
    cache.keep("new", bytes(700), {})
    left = {path.name.partition(".")[0] for path in tmp_path.glob("*.kept-plan")}
    assert left == {"old", "young", "new"}


def test_a_plan_that_is_larger_than_all_may_be_is_kept_alone(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path, 100)
    cache.keep("a", bytes(500), {})
    cache.keep("b", bytes(500), {})
    assert cache.find("a") is None
    assert cache.find("b") == bytes(500)


def test_a_folder_that_cannot_be_written_to_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    cache = PlanCache(tmp_path / "file" / "plans", ROOMY)
    with cache.alone("k"):
        assert cache.find("k") is None
        cache.keep("k", b"plan", {})
    assert "plans are not kept" in caplog.text
    assert "is not kept" in caplog.text


def test_what_was_left_of_a_plan_by_who_was_killed_is_removed(tmp_path: Path) -> None:
    (tmp_path / "k.1.partial").write_bytes(b"half a pl")
    (tmp_path / "other.1.partial").write_bytes(b"half of another o")
    PlanCache(tmp_path, ROOMY).keep("k", b"plan", {})
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == ["k.kept-plan", "other.1.partial"]


def test_a_disk_that_is_full_leaves_no_part_of_a_plan(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path, ROOMY)
    # What the kernel answers to each write on a full disk.
    partial = tmp_path / f"k.{os.getpid()}.partial"
    partial.symlink_to("/dev/full")
    cache.keep("k", b"plan", {})
    assert cache.find("k") is None
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_in_the_middle_of_a_plan_keeps_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = PlanCache(tmp_path, ROOMY)
    cache.keep("k", b"plan", {})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, before[1]))
    try:
        with cache.alone("k"):
            cache.keep("k", bytes(1_000_000), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert "is not kept: [Errno 27] File too large" in caplog.text
    assert cache.find("k") == b"plan"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k.kept-plan", "k.lock"]


def test_who_finds_another_one_building_the_same_plan_waits(tmp_path: Path) -> None:
    order: list[str] = []
    built = threading.Event()

    def second() -> None:
        with PlanCache(tmp_path, ROOMY).alone("k"):
            order.append("second")

    with PlanCache(tmp_path, ROOMY).alone("k"):
        other = threading.Thread(target=second)
        other.start()
        with PlanCache(tmp_path, ROOMY).alone("other key"):
            built.set()
        assert built.is_set()
        order.append("first")
    other.join()
    assert order == ["first", "second"]


def test_the_key_is_another_one_where_anything_differs() -> None:
    other_profile = {"x": Range((1,), (2,), (5,))}
    keys = [
        key_of("digest", RECIPE, IDENTITY),
        key_of("other", RECIPE, IDENTITY),
        key_of("digest", attrs.evolve(RECIPE, profiles=(other_profile,)), IDENTITY),
        key_of("digest", attrs.evolve(RECIPE, precision=Precision.FP16), IDENTITY),
        key_of("digest", attrs.evolve(RECIPE, workspace_mib=1), IDENTITY),
        key_of("digest", attrs.evolve(RECIPE, optimization_level=1), IDENTITY),
        key_of("digest", RECIPE, attrs.evolve(IDENTITY, library="tensorrt_rtx")),
        key_of("digest", RECIPE, attrs.evolve(IDENTITY, version="11.5")),
        key_of("digest", RECIPE, attrs.evolve(IDENTITY, device="A100 8.0")),
    ]
    assert len(set(keys)) == len(keys)
    assert keys[0] == key_of("digest", RECIPE, IDENTITY)


def test_where_plans_are_kept() -> None:
    assert cache_folder({"ATOMR_INFER_CACHE": "/c"}) == Path("/c/plans")
    assert cache_folder({"XDG_CACHE_HOME": "/x"}) == Path("/x/atomr-infer/plans")
    assert cache_folder({}) == Path("~/.cache/atomr-infer/plans").expanduser()
