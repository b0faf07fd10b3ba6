"""What vLLM is given before its engine starts: paths, a token."""

from __future__ import annotations

import importlib
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from atomr_infer.errors import ConfigError
from atomr_infer.model.deployment import Deployment, OptionValue
from atomr_infer.model.secret import Secret
from atomr_infer_vllm.loading import prepare
from atomr_infer_vllm.options import engine_arguments, parse_options
from atomr_infer_vllm.plugin import PLUGIN
from atomr_infer_vllm.telling import EXTENSION
from tests.engines.environments import how_to_make, interpreter_of
from tests.plugins.vllm.vllm_names import put_in_place

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "hf_0123456789abcdef"


def deployment(**options: OptionValue) -> Deployment:
    return Deployment(
        name="v", runtime="vllm", serves=("v", "cats"), options={**options}
    )


def prepared(token: Secret | None = None, /, **options: OptionValue) -> dict[str, Any]:
    parsed = parse_options(deployment(**options))
    given: dict[str, Any] = prepare("v", parsed, lambda _: None, token).given
    return given


@pytest.fixture(autouse=True)
def _vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    put_in_place(monkeypatch, on_cpu=True)
    for name in ("VLLM_NO_USAGE_STATS", "VLLM_WORKER_MULTIPROC_METHOD", "HF_TOKEN"):
        monkeypatch.setenv(name, "")  # so that it is as it was behind the test
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_a_credential_opens_the_hub_and_stands_in_no_argument(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    monkeypatch.setenv("HF_OIDC_RESOURCE", "another")
    given = prepared(Secret(TOKEN), weights="hf:org/private")
    assert given["hf_token"] is True
    assert TOKEN not in repr(given)
    assert os.environ["HF_TOKEN"] == TOKEN
    assert "HF_HUB_DISABLE_IMPLICIT_TOKEN" not in os.environ
    assert "HF_OIDC_RESOURCE" not in os.environ


def test_without_one_the_hub_is_asked_as_the_environment_says() -> None:
    assert "hf_token" not in prepared(weights="hf:org/public")
    assert os.environ["HF_TOKEN"] == ""


def test_a_token_in_the_options_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_options(deployment(weights="hf:a/b", engine={"hf_token": TOKEN}))
    assert "'hf_token' has an option here: the deployment's credential" in str(
        caught.value
    )


@pytest.mark.engine
@pytest.mark.slow
def test_the_hub_s_own_library_sends_that_token() -> None:
    python = interpreter_of("vllm")
    if python is None:
        pytest.skip(how_to_make("vllm"))
    script = (
        "from atomr_infer.model.secret import Secret\n"
        "from atomr_infer_vllm.loading import _set_environment\n"
        "from atomr_infer_vllm.options import Options\n"
        f"_set_environment(Options(weights='hf:a/b'), Secret({TOKEN!r}))\n"
        "from huggingface_hub.utils import build_hf_headers\n"
        "for asked in (True, None):\n"
        "    print(build_hf_headers(token=asked)['authorization'])\n"
    )
    odd = {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "HUGGING_FACE_HUB_TOKEN": "old"}
    said = subprocess.run(
        [str(python), "-c", script],
        env={**os.environ, **odd},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert said.stdout.splitlines() == [f"Bearer {TOKEN}"] * 2


def test_workers_tell_how_far_they_are_unless_they_are_extended_otherwise() -> None:
    assert prepared(weights="hf:a/b")["worker_extension_cls"] == EXTENSION
    module, _, name = EXTENSION.rpartition(".")
    assert getattr(importlib.import_module(module), name)
    own = prepared(weights="hf:a/b", engine={"worker_extension_cls": "own.Extension"})
    assert own["worker_extension_cls"] == "own.Extension"


def test_a_home_is_written_out_for_vllm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for folder in ("model", "adapter"):
        (tmp_path / folder).mkdir()
    options: dict[str, OptionValue] = {
        "weights": "~/model",
        "lora": {"cats": "~/adapter"},
    }
    assert prepared(**options)["model"] == str(tmp_path / "model")
    assert PLUGIN.files(deployment(**options)) == (
        tmp_path / "model",
        tmp_path / "adapter",
    )
    (tmp_path / "adapter").rmdir()
    with pytest.raises(ConfigError, match="there is no adapter ~/adapter for 'cats'"):
        prepared(**options)


def test_a_home_that_is_not_there_is_refused_when_the_options_are_read() -> None:
    found = deployment(weights="~no-such-user-here/model")
    with pytest.raises(ConfigError, match="there is no home for '~no-such-user-here"):
        parse_options(found)


def test_a_name_of_the_hub_stays_one() -> None:
    options = parse_options(deployment(weights="org/tiny"))
    assert engine_arguments(options, on_cpu=True)["model"] == "org/tiny"
