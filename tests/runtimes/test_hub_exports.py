"""Of a model that a hub has in more bits and fewer, one export is fetched."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from atomr_infer.errors import ConfigError, EngineStartError
from atomr_infer.runtimes.hub.fetching import Hub, fetch_model
from atomr_infer.runtimes.hub.names import HubModel, model_and_export
from atomr_infer_ort.loading import _WEIGHTS as ORT
from atomr_infer_tensorrt.loading import _WEIGHTS as TENSORRT
from tests.runtimes.fake_hub import REPO, FakeHub, serving
from tests.runtimes.test_hub_whole import files, ignore, of_variants, offline

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SETTINGS = {"config.json": b"{}", "tokenizer.json": b"{}"}
EXPORTS = {
    "onnx/model.onnx": b"32",
    "onnx/model.onnx_data": b"32 bits",
    "onnx/model_fp16.onnx": b"16",
    "onnx/model_fp16.onnx_data": b"16 bits",
    "onnx/model_fp16.onnx_data_1": b"and more",
    "onnx/model_q4.onnx": b"4",
    "onnx/model_q4.onnx.data": b"4 bits",
}


@pytest.fixture
def fake() -> Iterator[FakeHub]:
    with serving(FakeHub({**SETTINGS, **EXPORTS})) as hub:
        yield hub


@pytest.fixture
def hub(fake: FakeHub, tmp_path: Path) -> Hub:
    return Hub(endpoint=fake.url, folder=tmp_path, pause_s=0.0)


def fetch(
    hub: Hub,
    export: str | None = None,
    file: str | None = None,
    weights: tuple[str, ...] = ORT,
) -> Path:
    return fetch_model(hub, HubModel(REPO, file=file, export=export), weights, ignore)


def test_the_usual_one_is_fetched_and_the_log_says_how_to_name_another(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        folder = fetch(hub)
    of_32_bits = {"onnx/model.onnx", "onnx/model.onnx_data"}
    assert files(hub) == {*SETTINGS, *of_32_bits}
    assert caplog.messages == [
        "org/tiny has several .onnx files; onnx/model.onnx is taken, and not "
        "onnx/model_fp16.onnx, onnx/model_q4.onnx; for another one, name it in the "
        "deployment's options: file = 'onnx/model_fp16.onnx'"
    ]
    assert fetch(offline(hub)) == fetch(hub) == folder
    # The same files, asked for by the name of what they are or lie in.
    assert fetch(offline(hub), "onnx/model.onnx") == folder
    assert fetch(offline(hub), file="onnx") == folder / "onnx"


def test_one_that_is_named_is_fetched_with_its_weights(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        folder = fetch(hub, "onnx/model_fp16.onnx")
    named = {path for path in EXPORTS if path.startswith("onnx/model_fp16")}
    assert len(named) == 3
    assert files(hub) == {*SETTINGS, *named}
    assert caplog.messages == []
    assert fetch(offline(hub), "onnx/model_fp16.onnx") == folder
    # One that is whole says nothing of the others.
    for other in (None, "onnx/model_q4.onnx"):
        with pytest.raises(EngineStartError, match="is not in the cache"):
            fetch(offline(hub), other)
    fetch(hub)
    assert files(hub) == {*SETTINGS, *named, "onnx/model.onnx", "onnx/model.onnx_data"}


def test_one_of_a_folder_is_named_by_its_place_in_it(hub: Hub) -> None:
    folder = fetch(hub, "model_q4.onnx", file="onnx")
    assert folder.name == "onnx"
    assert files(hub) == {"onnx/model_q4.onnx", "onnx/model_q4.onnx.data"}


def test_what_is_not_there_is_refused_before_anything_is_fetched(
    fake: FakeHub, hub: Hub
) -> None:
    with pytest.raises(
        ConfigError,
        match=r"'org/tiny': there is no file 'model_q8\.onnx'; name one with file = "
        r"\.\.\.: onnx/model\.onnx, onnx/model_fp16\.onnx, onnx/model_q4\.onnx",
    ):
        fetch(hub, "model_q8.onnx")
    fake.files = {**SETTINGS, "onnx/a_q4.onnx": b"4", "onnx/a_q8.onnx": b"8"}
    with pytest.raises(
        ConfigError,
        match=r"several \.onnx files, and none is called as usual \(model\.onnx, .*\); "
        r"name one with file = \.\.\.: onnx/a_q4\.onnx, onnx/a_q8\.onnx",
    ):
        fetch(hub)
    assert files(hub) == set()
    fetch(hub, "onnx/a_q8.onnx")
    assert files(hub) == {*SETTINGS, "onnx/a_q8.onnx"}


def test_one_alone_is_taken_whatever_it_is_called(fake: FakeHub, hub: Hub) -> None:
    fake.files = {**SETTINGS, "classifier.onnx": b"32", "more.onnx_data": b"?"}
    fetch(hub)
    assert files(hub) == set(fake.files)


def test_settings_of_onnxruntime_genai_say_themselves_what_they_need(
    fake: FakeHub, hub: Hub
) -> None:
    variant = {**of_variants("cpu"), "cpu/vision.onnx": b"x"}
    fake.files = {**variant, **of_variants("cuda", size=1)}
    fetch(hub)
    assert files(hub) == set(variant)


@pytest.mark.parametrize("weights", [ORT, TENSORRT], ids=["ort", "tensorrt"])
def test_weights_beside_an_export_come_with_it(
    fake: FakeHub, hub: Hub, weights: tuple[str, ...]
) -> None:
    beside = {f"model.onnx{end}": b"w" for end in ("_data", "_data_1", ".data")}
    fake.files = {**SETTINGS, "model.onnx": b"32", **beside, "read.me": b"?"}
    fetch(hub, weights=weights)
    assert files(hub) == {*SETTINGS, "model.onnx", *beside}


def test_an_export_is_named_as_any_path_is(hub: Hub) -> None:
    folder = fetch(hub, "./onnx//model_q4.onnx")
    assert fetch(offline(hub), "onnx/model_q4.onnx") == folder
    assert fetch(offline(hub), "./onnx/model_q4.onnx") == folder


@pytest.mark.parametrize("export", ["../a.onnx", "onnx/../a.onnx", "/a.onnx", "", "."])
def test_a_path_that_leads_out_of_a_model_is_refused(export: str) -> None:
    with pytest.raises(ConfigError, match="write a path inside the model's folder"):
        HubModel(REPO, export=export)


def as_an_earlier_release(hub: Hub, fake: FakeHub, *missing: str) -> Path:
    """Have all exports in the cache, with the marks that were made then."""
    fetch(hub)
    top = next(hub.folder.glob("org--tiny/[0-9]*"))
    there = {path: b for path, b in fake.files.items() if path not in missing}
    for path in missing:
        (top / path).unlink(missing_ok=True)
    for path, content in there.items():
        (top / path).write_bytes(content)
    endings = ",".join(sorted(ORT))
    marks = [f"///{endings}//", f"/onnx//{endings}//onnx"]
    (top / ".whole").write_text("\n".join([*marks, *there]))
    return top


def test_what_an_earlier_release_fetched_is_still_whole(
    fake: FakeHub, hub: Hub
) -> None:
    top = as_an_earlier_release(hub, fake)
    away = Hub(endpoint="http://127.0.0.1:9", folder=hub.folder, pause_s=0.0)
    for one in (offline(hub), away):
        assert fetch(one) == fetch(one, "onnx/model_q4.onnx") == top
        assert fetch(one, "model_q4.onnx", file="onnx") == top / "onnx"
        with pytest.raises(EngineStartError, match="is not in the cache"):
            fetch(one, "onnx/model_q8.onnx")
    fake.asked.clear()
    fetch(hub, "onnx/model_q4.onnx")
    assert not any("resolve" in path for path, _, _ in fake.asked)


def test_what_an_earlier_release_left_out_is_fetched(
    fake: FakeHub, hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    fake.files = {**SETTINGS, "model.onnx": b"32", "model.onnx_data_1": b"more"}
    top = as_an_earlier_release(hub, fake, "model.onnx_data_1")
    # What served before does so yet where the rest does not come.
    fake.cuts = [0] * 5
    with caplog.at_level(logging.INFO):
        assert fetch(hub) == top
    assert "is taken from the cache: the model hub" in caplog.messages[-1]
    assert "it sent 0 of 4 bytes" in caplog.messages[-1]
    assert not (top / "model.onnx_data_1").exists()
    assert fetch(hub) == top
    assert (top / "model.onnx_data_1").read_bytes() == b"more"


@pytest.mark.parametrize(
    ("written", "model", "export"),
    [
        ("hf:a/b", "hf:a/b", None),
        ("hf:a/b/onnx", "hf:a/b/onnx", None),
        ("hf:a/b/m.onnx", "hf:a/b", "m.onnx"),
        ("hf:a/b@v1/onnx/m.onnx", "hf:a/b@v1", "onnx/m.onnx"),
        ("hf:a/b/cpu/int4/m.onnx", "hf:a/b/cpu/int4", "m.onnx"),
        ("hf:a/b/big/onnx/m.onnx", "hf:a/b/big", "onnx/m.onnx"),
        ("hf:a/b/onnx/m.onnx/", "hf:a/b", "onnx/m.onnx"),
    ],
)
def test_a_name_with_an_export_is_its_folder_and_the_file_inside(
    written: str, model: str, export: str | None
) -> None:
    assert model_and_export(written) == (model, export)
