"""What of a hub's model is whole in the cache, and for which weights."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import attrs
import pytest

from atomr_infer.errors import EngineStartError
from atomr_infer.runtimes.hub.fetching import Hub, fetch_model
from atomr_infer.runtimes.hub.names import parse_hub_model
from tests.runtimes.fake_hub import COMMIT, REPO, FakeHub, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from atomr_infer.runtimes.contract import Progress

TORCH, ONNX = (".safetensors",), (".onnx", ".onnx_data")


@pytest.fixture
def fake() -> Iterator[FakeHub]:
    with serving(FakeHub({})) as hub:
        yield hub


@pytest.fixture
def hub(fake: FakeHub, tmp_path: Path) -> Hub:
    return Hub(endpoint=fake.url, folder=tmp_path, pause_s=0.0)


def ignore(_: Progress) -> None:
    """Take progress that nobody shows."""


def fetch(hub: Hub, rest: str = "", weights: tuple[str, ...] = ONNX) -> str:
    """Return where a model is, below the repository's top."""
    found = fetch_model(hub, parse_hub_model(f"hf:{REPO}{rest}"), weights, ignore)
    return found.relative_to(hub.folder / "org--tiny" / COMMIT).as_posix()


def offline(hub: Hub) -> Hub:
    return attrs.evolve(hub, is_offline=True)


def files(hub: Hub) -> set[str]:
    top = hub.folder / "org--tiny" / COMMIT
    return {
        file.relative_to(top).as_posix()
        for file in top.rglob("*")
        if file.is_file() and file.name != ".whole"
    }


def of_variants(*folders: str, size: int = 10) -> dict[str, bytes]:
    return {
        f"{folder}/{name}": bytes(size)
        for folder in folders
        for name in ("genai_config.json", "model.onnx")
    }


def test_one_repository_is_fetched_for_each_engine_s_weights(
    fake: FakeHub, hub: Hub
) -> None:
    fake.files = {
        "config.json": b"{}",
        "model.safetensors": b"torch",
        "onnx/model.onnx": b"onnx",
    }
    assert fetch(hub, weights=TORCH) == "."
    assert files(hub) == {"config.json", "model.safetensors"}
    with pytest.raises(EngineStartError, match="is not in the cache"):
        fetch(offline(hub))
    assert fetch(hub) == "."
    assert files(hub) == set(fake.files)
    assert fetch(offline(hub), weights=TORCH) == fetch(offline(hub)) == "."
    assert fetch(offline(hub), "/onnx") == "onnx"


def test_a_mark_that_says_no_weights_is_not_believed(fake: FakeHub, hub: Hub) -> None:
    fake.files = {"config.json": b"{}", "model.safetensors": b"torch"}
    fetch(hub, weights=TORCH)
    whole = hub.folder / "org--tiny" / COMMIT / ".whole"
    whole.write_text("*\n/a//a\nconfig.json\nmodel.safetensors")
    with pytest.raises(EngineStartError, match="is not in the cache"):
        fetch(offline(hub), weights=TORCH)
    fake.asked.clear()
    assert fetch(hub, weights=TORCH) == "."
    # Its files are there, and are not fetched again.
    assert not any("resolve" in path for path, _, _ in fake.asked)
    assert fetch(offline(hub), weights=TORCH) == "."


def test_settings_at_the_top_are_no_model_without_weights(
    fake: FakeHub, hub: Hub
) -> None:
    fake.files = {"genai_config.json": b"{}", **of_variants("cpu/int4", "cuda/int4")}
    assert fetch(hub) == "cpu/int4"
    assert files(hub) == set(of_variants("cpu/int4"))


def test_a_model_at_the_top_is_that_of_its_own_files(fake: FakeHub, hub: Hub) -> None:
    top = {"genai_config.json": b"{}", "model.onnx": b"x", "more/b.onnx_data": b"y"}
    fake.files = {**top, **of_variants("cpu/int4", "cuda/int4")}
    assert fetch(hub) == "."
    assert files(hub) == set(top)
    with pytest.raises(EngineStartError, match="is not in the cache"):
        fetch(offline(hub), "/cuda/int4")


def test_of_a_folder_with_variants_below_it_one_is_fetched(
    fake: FakeHub, hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    fake.files = {
        **of_variants("cuda/fp16", size=900),
        **of_variants("cuda/int4", "cpu/int4"),
    }
    with caplog.at_level(logging.INFO):
        assert fetch(hub, f"@{COMMIT}/cuda") == "cuda/int4"
    assert files(hub) == set(of_variants("cuda/int4"))
    assert caplog.messages == [
        "org/tiny has several variants; cuda/int4 is taken, and not cuda/fp16; for "
        f"another one, name its folder: model = 'hf:org/tiny@{COMMIT}/cuda/fp16'"
    ]
    assert fetch(offline(hub), f"@{COMMIT}/cuda") == "cuda/int4"


def test_a_variant_below_another_one_is_a_model_of_its_own(
    fake: FakeHub, hub: Hub
) -> None:
    fake.files = {**of_variants("cuda", size=900), **of_variants("cuda/int4")}
    assert fetch(hub) == "cuda/int4"
    assert files(hub) == set(of_variants("cuda/int4"))
    assert fetch(hub, "/cuda") == "cuda"
    assert files(hub) == set(fake.files)


def test_a_folder_that_came_with_another_name_is_there(fake: FakeHub, hub: Hub) -> None:
    fake.files = {"config.json": b"{}", **of_variants("cpu/int4", "cuda/int4")}
    assert fetch(hub) == "cpu/int4"
    for rest in ("", "/cpu", "/cpu/int4", "/cpu/int4/model.onnx"):
        assert fetch(offline(hub), rest) == (
            rest[1:] if "model" in rest else "cpu/int4"
        )
    with pytest.raises(EngineStartError, match="is not in the cache"):
        fetch(offline(hub), "/cuda/int4")
    assert fetch(hub, "/cuda") == fetch(offline(hub), "/cuda/int4") == "cuda/int4"


def test_a_folder_with_some_of_its_files_is_not_there(fake: FakeHub, hub: Hub) -> None:
    fake.files = {"a/config.json": b"{}", "a/m.onnx": b"x", "a/m.onnx_data": b"y"}
    assert fetch(hub, "/a/m.onnx") == "a/m.onnx"
    for rest in ("", "/a"):
        with pytest.raises(EngineStartError, match="is not in the cache"):
            fetch(offline(hub), rest)
    assert fetch(hub, "/a", (".onnx",)) == "a"
    with pytest.raises(EngineStartError, match="is not in the cache"):
        fetch(offline(hub), "/a")
    assert fetch(hub, "/a") == fetch(offline(hub), "/a") == "a"
    assert files(hub) == set(fake.files)


def _unlink(file: Path) -> None:
    file.unlink()


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def fetched(fake: FakeHub) -> list[str]:
    """Return the files that were asked for."""
    return [path.split(COMMIT)[1] for path, _, _ in fake.asked if "resolve" in path]


@pytest.mark.parametrize("harm", [_unlink, _empty, _cut])
@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_file_that_is_no_longer_whole_is_fetched_again(
    fake: FakeHub, hub: Hub, file: str, harm: Callable[[Path], None]
) -> None:
    fake.files = {"config.json": b"{}", "model.safetensors": b"torch"}
    fetch(hub, weights=TORCH)
    there = hub.folder / "org--tiny" / COMMIT / file
    harm(there)
    with pytest.raises(EngineStartError, match="is not in the cache"):
        fetch(offline(hub), weights=TORCH)
    fake.asked.clear()
    fetch(hub, weights=TORCH)
    assert there.read_bytes() == fake.files[file]
    assert fetched(fake) == [f"/{file}"]


@pytest.mark.parametrize("harm", [_unlink, _empty, _cut])
@pytest.mark.parametrize("asked", ["", "/m-00001-of-00002.gguf"])
def test_a_part_that_is_no_longer_whole_is_fetched_again(
    fake: FakeHub, hub: Hub, asked: str, harm: Callable[[Path], None]
) -> None:
    parts = {f"m-0000{n}-of-00002.gguf": b"part" for n in (1, 2)}
    fake.files = dict(parts)
    fetch(hub, weights=(".gguf",))
    second = hub.folder / "org--tiny" / COMMIT / "m-00002-of-00002.gguf"
    harm(second)
    with pytest.raises(EngineStartError, match="is not in the cache"):
        fetch(offline(hub), asked, (".gguf",))
    assert fetch(hub, asked, (".gguf",)) == "m-00001-of-00002.gguf"
    assert second.read_bytes() == b"part"


def test_a_file_that_has_gone_is_no_matter_to_what_does_not_need_it(
    fake: FakeHub, hub: Hub
) -> None:
    fake.files = {"a-Q4_K_M.gguf": b"4", "b-Q8_0.gguf": b"8", "m.safetensors": b"t"}
    for rest in ("", "/b-Q8_0.gguf"):
        fetch(hub, rest, (".gguf",))
    fetch(hub, weights=TORCH)
    top = hub.folder / "org--tiny" / COMMIT
    (top / "b-Q8_0.gguf").unlink()
    assert fetch(offline(hub), weights=(".gguf",)) == "a-Q4_K_M.gguf"
    assert fetch(offline(hub), weights=TORCH) == "."
    # Nor is it forgotten by what needs it when others come.
    (top / "m.safetensors").unlink()
    (top / "a-Q4_K_M.gguf").unlink()
    fetch(hub, weights=TORCH)
    with pytest.raises(EngineStartError, match="is not in the cache"):
        fetch(offline(hub), weights=(".gguf",))


def test_a_note_of_an_earlier_release_without_sizes_is_believed_of_what_is_there(
    fake: FakeHub, hub: Hub
) -> None:
    fake.files = {"config.json": b"{}", "model.safetensors": b"torch"}
    fetch(hub, weights=TORCH)
    top = hub.folder / "org--tiny" / COMMIT
    lines = (top / ".whole").read_text().split("\n")
    sizes = [line for line in lines if line.startswith("//") and line[2] != "/"]
    assert sizes == ["//2//config.json", "//5//model.safetensors"]
    old = "\n".join(line for line in lines if line not in sizes)
    (top / ".whole").write_text(old)
    fake.asked.clear()
    assert fetch(hub, weights=TORCH) == fetch(offline(hub), weights=TORCH) == "."
    assert len(fake.asked) == 1
    _empty(top / "model.safetensors")
    with pytest.raises(EngineStartError, match="is not in the cache"):
        fetch(offline(hub), weights=TORCH)
    fetch(hub, weights=TORCH)
    assert fetched(fake) == ["/model.safetensors"]


def test_what_is_named_is_on_the_disk_before(
    fake: FakeHub, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash leaves no name with nothing behind it."""
    fake.files = {"config.json": b"{}", "model.safetensors": b"torch"}
    synced: list[str] = []
    real_sync = os.fsync

    def sync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real_sync(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    fetch(hub, weights=TORCH)
    assert [name.rpartition("/")[2] for name in synced] == [
        "config.json.partial",
        "model.safetensors.partial",
        ".whole.partial",
        "main.partial",
    ]


def test_a_damaged_note_says_less(fake: FakeHub, hub: Hub) -> None:
    fake.files = {"config.json": b"{}", "model.safetensors": b"torch"}
    fetch(hub, weights=TORCH)
    whole = hub.folder / "org--tiny" / COMMIT / ".whole"
    whole.write_bytes(b"\0\0\n\xff\xfe.json\n")
    fake.asked.clear()
    assert fetch(hub, weights=TORCH) == fetch(offline(hub), weights=TORCH) == "."
    assert fetched(fake) == []
