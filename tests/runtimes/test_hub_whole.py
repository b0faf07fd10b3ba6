"""What of a hub's model is whole in the cache, and for which weights."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import attrs
import pytest

from atomr_infer.errors import EngineStartError
from atomr_infer.runtimes.hub import Hub, fetch_model
from atomr_infer.runtimes.hub_names import parse_hub_model
from tests.runtimes.fake_hub import COMMIT, REPO, FakeHub, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
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
