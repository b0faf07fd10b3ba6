"""Which look at the files is that of a change that is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr_infer.cli.plan import plan_serving
from atomr_infer.cli.serving.watch import Watch, look, watched_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OLD = ((1, 10, 1),)
HALF = ((1, 4, 2),)
WHOLE = ((1, 12, 3),)
OTHER = ((2, 12, 3),)
GONE = (None,)


def changes(*looks: tuple[tuple[int, int, int] | None, ...]) -> list[int]:
    """The numbers of the looks that are those of a change."""
    watch = Watch(OLD)
    return [n for n, now in enumerate(looks) if watch.changed(now)]


def test_what_nobody_has_looked_at_is_a_change_when_it_is_whole() -> None:
    watch = Watch()
    looks = (OLD, OLD, OLD)
    assert [watch.changed(now) for now in looks] == [False, True, False]


def test_a_file_that_stays_the_same_changes_nothing() -> None:
    assert changes(OLD, OLD, OLD) == []


def test_a_file_that_is_being_written_is_left_alone_until_it_rests() -> None:
    assert changes(HALF, WHOLE, WHOLE, WHOLE) == [2]


def test_a_file_that_is_written_as_it_was_changes_nothing() -> None:
    assert changes(HALF, OLD, OLD) == []


def test_another_file_in_its_place_is_a_change() -> None:
    assert changes(OTHER, OTHER) == [1]


def test_a_file_that_is_away_for_a_moment_is_being_replaced() -> None:
    assert changes(GONE, GONE, OTHER, OTHER) == [3]


def test_a_file_that_stays_away_is_told_once() -> None:
    assert changes(*[GONE] * 12) == [5]


def test_each_change_is_told() -> None:
    assert changes(HALF, HALF, WHOLE, WHOLE, WHOLE) == [1, 3]


def test_files_are_what_they_are(tmp_path: Path) -> None:
    here, away = tmp_path / "here", tmp_path / "away"
    here.write_text("text")
    first = look([str(here), str(away)])
    found = here.stat()
    assert first == ((found.st_ino, 4, found.st_mtime_ns), None)
    other = tmp_path / "other"
    other.write_text("text")
    other.replace(here)
    assert look([str(here), str(away)]) != first


def test_the_certificate_and_the_gateways_own_keys_are_watched_too(
    write: Callable[[str], str], tmp_path: Path
) -> None:
    (tmp_path / "admin").write_text("adm-0123456789")
    path = write(
        '[gateway]\nadmin_key = { file = "admin" }\nkeys = [{ env = "K" }]\n'
        '[[deployment]]\nname = "m"\nruntime = "mock"\n'
    )
    plan = plan_serving(
        config_path=tmp_path / "atomr.toml", bind=None, environ={"K": "k"}
    )
    assert watched_files(plan) == (path, str(tmp_path / "admin"))
    gateway = attrs.evolve(plan.gateway, certificate="c.pem", private_key="k.pem")
    files = watched_files(attrs.evolve(plan, gateway=gateway))
    assert files == (path, "c.pem", "k.pem", str(tmp_path / "admin"))
