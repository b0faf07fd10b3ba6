"""An engine's interpreter in another environment, and what may be wrong with it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from atomr_infer._version import VERSION
from atomr_infer.bridge.opening import open_bridged_runner
from atomr_infer.bridge.system.interpreter import (
    Answer,
    check_interpreter,
    what_is_wrong,
)
from atomr_infer.config.load import parse_config
from atomr_infer.errors import ConfigError, EngineStartError, PluginError
from atomr_infer.model.deployment import Deployment
from atomr_infer.runtimes.available import check_available
from atomr_infer.runtimes.contract import RunnerContext
from atomr_infer.runtimes.loader import load_runtime

if TYPE_CHECKING:
    from pathlib import Path

PYTHON = "/v/bin/python"
REF = "atomr_infer_mistralrs.plugin:PLUGIN"


def script(folder: Path, text: str) -> str:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def deployment(interpreter: str, runtime: str = "mistralrs") -> Deployment:
    return Deployment(
        name="own", runtime=runtime, model="m.gguf", interpreter=interpreter
    )


async def start_error(python: str) -> str:
    with pytest.raises(EngineStartError) as caught:
        async with open_bridged_runner(REF, deployment(python), RunnerContext()):
            pass
    return str(caught.value)


async def test_an_interpreter_that_has_all_of_it_is_used() -> None:
    await check_interpreter(sys.executable, "atomr_infer.testing.mock:PLUGIN", "mock")


async def test_an_interpreter_that_is_not_there_is_the_reason() -> None:
    assert (await start_error("/nowhere/python")).startswith(
        "the interpreter '/nowhere/python' cannot be started: "
    )


async def test_a_program_that_is_no_python_is_the_reason(tmp_path: Path) -> None:
    other = script(tmp_path, "echo hello; echo unknown option >&2; exit 2")
    assert await start_error(other) == (
        f"the interpreter {other!r} is no Python, or a broken one; "
        "it said: unknown option"
    )


async def test_an_environment_without_this_package_is_told_how_to_get_it(
    tmp_path: Path,
) -> None:
    # -S leaves out site-packages, and -I what points there.
    bare = script(tmp_path, f'exec {sys.executable} -I -S "$@"')
    assert await start_error(bare) == (
        f"the interpreter {bare!r} has no atomr-infer; run: "
        f"{bare} -m pip install 'atomr-infer[mistralrs]=={VERSION}'"
    )


async def test_a_plugin_that_cannot_be_imported_there_is_the_reason() -> None:
    with pytest.raises(EngineStartError, match="'x': the engine's interpreter cannot"):
        await check_interpreter(sys.executable, "no_such_module:PLUGIN", "x")


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (Answer(python=(3, 9)), "is Python 3.9; 3.11 or newer is needed"),
        (
            Answer(python=(3, 12), version="0.0.1"),
            f"has atomr-infer 0.0.1, and this is {VERSION}; "
            f"run: /v/bin/python -m pip install 'atomr-infer[vllm]=={VERSION}'",
        ),
        (
            Answer(python=(3, 12), version=VERSION, missing=("vllm", "torch")),
            "lacks vllm, torch; run: /v/bin/python -m pip install vllm torch",
        ),
        (Answer(python=(3, 12), version=VERSION), None),
    ],
)
def test_what_is_wrong_is_said_with_its_cure(
    answer: Answer, problem: str | None
) -> None:
    assert what_is_wrong(answer, "", PYTHON, "vllm") == problem


def test_another_environment_is_not_asked_for_packages_of_this_one() -> None:
    class Lacking(type(load_runtime("mistralrs"))):  # type: ignore[misc] # its class is the plugin's own affair
        def missing(self) -> tuple[str, ...]:
            return ("mistralrs",)

    check_available(Lacking(), deployment(sys.executable))
    with pytest.raises(PluginError, match="needs the package mistralrs"):
        check_available(Lacking(), Deployment(name="own", runtime="mistralrs"))


@pytest.mark.parametrize("python", ["/nowhere/python", "/"])
def test_an_interpreter_that_is_not_there_is_refused_before_the_start(
    python: str,
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_available(load_runtime("mistralrs"), deployment(python))
    assert str(caught.value) == (
        f"deployment 'own': interpreter is {python!r}, which is not there or is no "
        "program"
    )


def test_a_client_in_this_process_has_no_interpreter() -> None:
    with pytest.raises(PluginError, match="'openai' runs in this process; leave it"):
        check_available(load_runtime("openai"), deployment(sys.executable, "openai"))


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("/v/bin/python", "/v/bin/python"),
        ("v/bin/python", "/etc/atomr/v/bin/python"),
        ("~/v/bin/python", "/home/ann/v/bin/python"),
    ],
)
def test_its_path_may_be_relative_to_the_file(
    monkeypatch: pytest.MonkeyPatch, written: str, read: str
) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    text = f'[[deployment]]\nname="a"\nruntime="mock"\ninterpreter="{written}"\n'
    (found,) = parse_config(text, "/etc/atomr/atomr.toml").deployments
    assert found.interpreter == read
