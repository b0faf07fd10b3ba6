"""A cache that cannot be found is the configuration's mistake, wherever it is used."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from atomr_infer.errors import ConfigError, EngineStartError
from atomr_infer.runtimes import kept_models
from atomr_infer.runtimes.cache import DISK_FULL, disk_full, own_cache
from atomr_infer.runtimes.hub.fetching import Hub, fetch_model, hub_of
from atomr_infer.runtimes.hub.names import HubModel
from atomr_infer_tensorrt import cache as plans

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

USERS: dict[str, Callable[[Mapping[str, str]], object]] = {
    "hub": lambda environ: hub_of(environ, None),
    "models": kept_models.cache_folder,
    "plans": plans.cache_folder,
}


@pytest.mark.parametrize("name", ["ATOMR_INFER_CACHE", "XDG_CACHE_HOME"])
@pytest.mark.parametrize("use", USERS.values(), ids=USERS)
def test_a_home_that_is_nobodys_is_told(
    use: Callable[[Mapping[str, str]], object], name: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        use({name: "~no-such-user-here"})
    assert "the cache '~no-such-user-here" in str(caught.value)
    assert "there is no such home; set ATOMR_INFER_CACHE to a folder" in str(
        caught.value
    )


def test_a_home_stands_for_its_folder() -> None:
    assert own_cache({"ATOMR_INFER_CACHE": "~/c"}) == Path.home() / "c"
    assert own_cache({"ATOMR_INFER_CACHE": "", "XDG_CACHE_HOME": "/x"}) == Path(
        "/x/atomr-infer"
    )


def no_mkdir(folder: Path, **_: object) -> None:
    raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), str(folder))


def test_a_quota_that_is_full_is_told_where_no_folder_could_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a" / "models"
    monkeypatch.setattr(Path, "mkdir", no_mkdir)
    with (
        pytest.raises(
            EngineStartError, match=r"2 MiB are needed and \d+ MiB"
        ) as caught,
        kept_models.cache_errors(),
        kept_models.space_errors(folder, lambda: 0),
    ):
        folder.mkdir(parents=True)
    assert caught.value.code == DISK_FULL
    told = r".*cannot be written: Disk quota exceeded: \d+ MiB are free, and more is"
    with pytest.raises(EngineStartError, match=told):
        fetch_model(Hub("http://127.0.0.1:9", folder), HubModel("o/n"), (), print)


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, "the disk of '{0}' is full: "),
        (errno.EDQUOT, "'{0}' cannot be written: Disk quota exceeded: "),
        (errno.EFBIG, "'{0}' cannot be written: File too large: "),
    ],
)
def test_only_a_disk_without_room_is_full(
    tmp_path: Path, number: int, told: str
) -> None:
    full = disk_full(tmp_path, 2**20, OSError(number, os.strerror(number)))
    assert full.message.startswith(told.format(tmp_path))
    assert ("free some space" in full.message) is (number == errno.ENOSPC)
    assert full.code == DISK_FULL
