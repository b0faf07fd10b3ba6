"""Models of a hub are fetched once, whole or not at all: real sockets."""

from __future__ import annotations

import logging
import shutil
from typing import TYPE_CHECKING

import attrs
import pytest

from atomr_infer.errors import ConfigError, EngineStartError
from atomr_infer.model.secret import Secret
from atomr_infer.runtimes.cache import DISK_FULL
from atomr_infer.runtimes.contract import Progress
from atomr_infer.runtimes.hub.fetching import Hub, fetch_model, hub_of
from atomr_infer.runtimes.hub.names import HubModel, parse_hub_model
from tests.runtimes.fake_hub import COMMIT, REPO, FakeHub, serving
from tests.runtimes.small_disk import mounted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODEL = HubModel(REPO)
WEIGHTS = bytes(range(256)) * 10_000
FILES = {
    "config.json": b"{}",
    "model.safetensors": WEIGHTS,
    "onnx/model.onnx": b"onnx",
    "README.md": b"read me",
}


@attrs.frozen
class _Usage:
    """What ``shutil.disk_usage`` says."""

    free: int = 0


@pytest.fixture
def fake() -> Iterator[FakeHub]:
    with serving(FakeHub(dict(FILES))) as hub:
        yield hub


def ignore(_: Progress) -> None:
    """Take progress that nobody shows."""


def hub_at(fake: FakeHub, folder: Path, token: str | None = None) -> Hub:
    return Hub(
        endpoint=fake.url,
        folder=folder,
        token=None if token is None else Secret(token),
        pause_s=0.0,
    )


def fetch(hub: Hub, model: HubModel = MODEL) -> Path:
    return fetch_model(hub, model, (".safetensors",), ignore)


def found(folder: Path) -> dict[str, bytes]:
    """Return the files of a model that was fetched."""
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.name != ".whole"
    }


def test_what_an_engine_needs_is_fetched_once(fake: FakeHub, tmp_path: Path) -> None:
    hub, told = hub_at(fake, tmp_path), list[Progress]()
    folder = fetch_model(hub, MODEL, (".safetensors",), told.append)
    assert folder == tmp_path / "org--tiny" / COMMIT
    assert found(folder) == {k: FILES[k] for k in ("config.json", "model.safetensors")}
    total = len(WEIGHTS) + 2
    assert told[0] == Progress("asking for org/tiny")
    assert told[-1] == Progress("fetching org/tiny", total, total)
    counted = [step.done for step in told[1:] if step.done is not None]
    assert counted == sorted(counted)
    fake.asked.clear()
    assert fetch(hub) == folder
    assert [path for path, _, _ in fake.asked] == [f"/api/models/{REPO}/revision/main"]


def test_one_file_is_fetched_alone(fake: FakeHub, tmp_path: Path) -> None:
    hub = hub_at(fake, tmp_path)
    file = fetch(hub, HubModel(REPO, file="onnx/model.onnx"))
    assert file.read_bytes() == b"onnx"
    assert len(found(file.parents[1])) == 1
    # The directory is not there with it.
    assert found(fetch(hub))["model.safetensors"] == WEIGHTS


def variant(size: int, at: str) -> dict[str, bytes]:
    return {
        f"{at}genai_config.json": b"{}",
        f"{at}model.onnx": bytes(size),
        f"{at}tokenizer.json": at.encode(),
    }


VARIANTS = {
    **variant(900, "cuda/cuda-fp16/"),
    **variant(10, "cuda/cuda-int4/"),
    **variant(300, "cpu_and_mobile/cpu-int8/"),
    **variant(200, "cpu_and_mobile/cpu-int4-b/"),
    **variant(200, "cpu_and_mobile/cpu-int4-a/"),
    "config.json": b"{}",
}


def onnx(hub: Hub, file: str | None = None) -> Path:
    return fetch_model(hub, HubModel(REPO, file=file), (".onnx",), ignore)


def test_of_several_variants_the_smallest_for_a_cpu_is_fetched_alone(
    fake: FakeHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake.files = dict(VARIANTS)
    hub = hub_at(fake, tmp_path)
    with caplog.at_level(logging.INFO):
        folder = onnx(hub)
    top = tmp_path / "org--tiny" / COMMIT
    at = "cpu_and_mobile/cpu-int4-a/"
    assert folder == top / at
    assert found(top) == {k: v for k, v in VARIANTS.items() if k.startswith(at)}
    assert caplog.messages == [
        "org/tiny has several variants; cpu_and_mobile/cpu-int4-a is taken, and not "
        "cpu_and_mobile/cpu-int4-b, cpu_and_mobile/cpu-int8, cuda/cuda-fp16, "
        "cuda/cuda-int4; for another one, name its folder: "
        "model = 'hf:org/tiny/cpu_and_mobile/cpu-int4-b'"
    ]
    asked = len(fake.asked)
    # It is known again, with a question for the revision or with none.
    assert onnx(hub) == onnx(attrs.evolve(hub, is_offline=True)) == folder
    assert len(fake.asked) == asked + 1


def test_another_variant_is_fetched_by_its_folder_s_name(
    fake: FakeHub, tmp_path: Path
) -> None:
    fake.files = dict(VARIANTS)
    hub = hub_at(fake, tmp_path)
    folder = onnx(hub, "cuda/cuda-int4")
    assert folder == tmp_path / "org--tiny" / COMMIT / "cuda/cuda-int4"
    assert sorted(found(folder)) == [
        "genai_config.json",
        "model.onnx",
        "tokenizer.json",
    ]
    assert len(found(folder.parents[1])) == 3
    named = parse_hub_model(f"hf:{REPO}/cuda/cuda-int4/")
    offline = attrs.evolve(hub, is_offline=True)
    assert fetch_model(offline, named, (".onnx",), ignore) == folder
    # Neither is the one that is taken unasked there with it.
    with pytest.raises(EngineStartError, match="is not in the cache"):
        onnx(offline)
    with pytest.raises(ConfigError, match="no folder of that name with weights"):
        onnx(hub, "cuda/cuda")


def test_one_at_the_top_is_taken_without_the_others(
    fake: FakeHub, tmp_path: Path
) -> None:
    top = variant(500, "")
    fake.files = {**VARIANTS, **top, "onnx/more.onnx": b"x"}
    folder = onnx(hub_at(fake, tmp_path))
    assert folder == tmp_path / "org--tiny" / COMMIT
    assert sorted(found(folder)) == sorted({*top, "config.json", "onnx/more.onnx"})


def test_a_file_that_is_cut_off_goes_on_from_there(
    fake: FakeHub, tmp_path: Path
) -> None:
    fake.cuts = [2, 100_000, 50_000]
    assert found(fetch(hub_at(fake, tmp_path)))["model.safetensors"] == WEIGHTS
    ranges = [asked for path, asked, _ in fake.asked if path.endswith(".safetensors")]
    assert ranges == [None, "bytes=100000-", "bytes=150000-"]


def test_a_hub_that_knows_no_ranges_sends_it_again(
    fake: FakeHub, tmp_path: Path
) -> None:
    fake.cuts, fake.no_range = [2, 100_000], True
    assert found(fetch(hub_at(fake, tmp_path)))["model.safetensors"] == WEIGHTS


def test_what_has_come_is_kept_for_the_next_start(
    fake: FakeHub, tmp_path: Path
) -> None:
    fake.cuts = [2, 5000, *[0] * 5]
    with pytest.raises(EngineStartError, match="it sent 5000 of 2560000 bytes"):
        fetch(hub_at(fake, tmp_path))
    fake.asked.clear()
    assert found(fetch(hub_at(fake, tmp_path)))["model.safetensors"] == WEIGHTS
    assert fake.asked[-1][1] == "bytes=5000-"


@pytest.mark.parametrize("path", ["config.json", "model.safetensors"])
def test_a_damaged_file_is_never_used(fake: FakeHub, tmp_path: Path, path: str) -> None:
    fake.files["config.json"] = b"[1]"
    fake.damage.add(path)
    with pytest.raises(EngineStartError, match=f"'{path}' of 'org/tiny' is damaged"):
        fetch(hub_at(fake, tmp_path))
    assert path not in found(tmp_path / "org--tiny" / COMMIT)
    fake.damage.clear()
    assert found(fetch(hub_at(fake, tmp_path)))[path] == fake.files[path]


def test_a_file_that_does_not_end_is_refused(fake: FakeHub, tmp_path: Path) -> None:
    fake.more = b"x" * 2**20
    with pytest.raises(EngineStartError, match="is longer than the hub says"):
        fetch(hub_at(fake, tmp_path))


def test_a_token_opens_it_and_goes_nowhere_else(fake: FakeHub, tmp_path: Path) -> None:
    fake.token = "hf-secret"
    with serving(FakeHub(dict(FILES))) as store:
        # Another host, as far as anybody can tell.
        fake.elsewhere = store.url.replace("127.0.0.1", "localhost")
        with pytest.raises(ConfigError) as caught:
            fetch(hub_at(fake, tmp_path))
        assert 'credential = { env = "HF_TOKEN" }' in str(caught.value)
        with pytest.raises(ConfigError, match="credential does not open it"):
            fetch(hub_at(fake, tmp_path, "wrong"))
        folder = fetch(hub_at(fake, tmp_path, "hf-secret"))
    assert found(folder)["model.safetensors"] == WEIGHTS
    assert {auth for _, _, auth in store.asked} == {None}


def test_what_is_not_there_is_told(fake: FakeHub, tmp_path: Path) -> None:
    hub = hub_at(fake, tmp_path)
    with pytest.raises(ConfigError, match="no model 'org/none' with the revision 'v1'"):
        fetch(hub, HubModel("org/none", "v1"))
    with pytest.raises(ConfigError) as caught:
        fetch(hub, HubModel(REPO, file="x.safetensors"))
    assert str(caught.value) == (
        "'org/tiny' has no file 'x.safetensors', and no folder of that name with "
        "weights; files with weights: model.safetensors"
    )
    with pytest.raises(ConfigError, match=r"no file that ends with \.gguf"):
        fetch_model(hub, MODEL, (".gguf",), ignore)


def test_offline_serves_what_is_whole_and_asks_nobody(
    fake: FakeHub, tmp_path: Path
) -> None:
    environ = {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": fake.url}
    offline = hub_of({**environ, "ATOMR_INFER_CACHE": str(tmp_path)}, None)
    with pytest.raises(EngineStartError, match=r"not in the cache .*OFFLINE is set"):
        fetch(offline)
    folder = fetch(hub_at(fake, offline.folder))
    fake.asked.clear()
    assert fetch(offline) == folder
    assert fetch(offline, HubModel(REPO, COMMIT)) == folder
    assert fake.asked == []


def test_a_hub_that_is_away_is_no_obstacle_to_what_is_here(
    fake: FakeHub, tmp_path: Path
) -> None:
    folder = fetch(hub_at(fake, tmp_path))
    away = Hub(endpoint="http://127.0.0.1:9", folder=tmp_path, pause_s=0.0)
    assert fetch(away) == folder
    with pytest.raises(EngineStartError, match="cannot be reached"):
        fetch(away, HubModel("org/other"))


def test_a_full_disk_is_told_with_figures_before_anything_is_fetched(
    fake: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = _Usage(free=2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(EngineStartError) as caught:
        fetch(hub_at(fake, tmp_path))
    assert caught.value.code == DISK_FULL
    assert "is full: 1 MiB are free, and 3 MiB are needed; " in caught.value.message
    assert not any("resolve" in path for path, _, _ in fake.asked)


def test_a_disk_that_others_fill_meanwhile_is_told_with_what_is_still_to_come(
    fake: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, roomy = shutil.disk_usage, [_Usage(free=2**30)]
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: roomy.pop() if roomy else measure(path)
    )
    with mounted(tmp_path / "disk") as disk:
        with pytest.raises(EngineStartError) as caught:
            fetch(hub_at(fake, disk))
        assert caught.value.code == DISK_FULL
        assert f"{COMMIT}' is full: 0 MiB are free, and 2 MiB are needed; " in (
            caught.value.message
        )
        assert isinstance(caught.value.__cause__, OSError)
        # What has come is there for a later try.
        [part] = disk.rglob("*.partial")
        assert part.stat().st_size > len(WEIGHTS) // 4


@pytest.mark.parametrize(
    "entry",
    [
        {"type": "file", "path": "../x.json", "size": 1, "oid": "a"},
        {"type": "file", "path": "/etc/x.json", "size": 1, "oid": "a"},
        {"type": "file", "path": "a\\..\\x.json", "size": 1, "oid": "a"},
        {"type": "file", "path": "x.json", "size": -1, "oid": "a"},
        {"type": "file", "path": "x.json"},
        {"type": "file", "path": "\ud800.json", "size": 1, "oid": "a"},
        {"type": "file", "path": "config.json/x.json", "size": 1, "oid": "a"},
        7,
    ],
)
def test_a_list_that_makes_no_sense_is_refused(
    fake: FakeHub, tmp_path: Path, entry: object
) -> None:
    fake.entries = [entry]
    with pytest.raises(EngineStartError, match="list of files makes no sense"):
        fetch(hub_at(fake, tmp_path))


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        (".whole/x.json", "the cache keeps its notes under the name '.whole'"),
        (".whole.partial", ""),
        ("a\nb.json", "a name with a line break cannot be noted"),
        ("a\rb.txt", "a name with a line break cannot be noted"),
        ("a\u2028b.json", ""),
    ],
)
def test_a_file_that_cannot_lie_in_the_cache_is_told_where_it_is_needed(
    fake: FakeHub, tmp_path: Path, path: str, problem: str
) -> None:
    fake.files[path] = b"{}"
    hub = hub_at(fake, tmp_path)
    if not problem:
        assert fetch(hub) == fetch(attrs.evolve(hub, is_offline=True))
        return
    with pytest.raises(EngineStartError, match=problem) as caught:
        fetch(hub)
    assert repr(path) in caught.value.message
    assert "cannot be used" not in caught.value.message


def test_a_branch_that_moved_and_does_not_come_leaves_the_one_before(
    fake: FakeHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub = hub_at(fake, tmp_path)
    folder = fetch(hub)
    moved = "f" * 40
    fake.commit, fake.cuts = moved, [0] * 5
    assert fetch(hub) == folder
    warned = [r.message for r in caplog.records if "is " + moved in r.message]
    (warning,) = warned
    assert warning.startswith(
        f"org/tiny: main is {moved} now, which could not be fetched; the earlier "
        f"{COMMIT} serves: the model hub "
    )
    # It is tried again, and the earlier one stays what serves without a network.
    assert fetch(attrs.evolve(hub, is_offline=True)) == folder
    assert fetch(hub) == tmp_path / "org--tiny" / moved


def test_a_branch_that_moved_and_was_never_whole_is_told(
    fake: FakeHub, tmp_path: Path
) -> None:
    hub = hub_at(fake, tmp_path)
    fetch(hub, HubModel(REPO, file="onnx/model.onnx"))
    fake.commit, fake.cuts = "f" * 40, [0] * 5
    with pytest.raises(EngineStartError, match="is not in the cache"):
        fetch(hub)


@pytest.mark.parametrize(
    "written",
    ["hf:tiny", "hf:a/b@", "hf:a/b/../c", "hf:../b", "hf:a/b@x/y/../z", "hf:"],
)
def test_a_name_that_names_no_model_is_refused(written: str) -> None:
    with pytest.raises(ConfigError, match="write hf:ORGANISATION/NAME"):
        parse_hub_model(written)
