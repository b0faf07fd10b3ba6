"""A model that is not there: told before anything is started, where nothing else is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest

from atomr_infer.cli.plan import plan_serving
from atomr_infer.cli.serving.missing_files import refuse_missing_at_start
from atomr_infer.errors import ConfigError
from tests.cli.conftest import run_command

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = '[gateway]\nbind = "127.0.0.1:0"\n'


def deployment(name: str, model: str) -> str:
    return (
        f'[[deployment]]\nname = "{name}"\nruntime = "mistralrs"\nmodel = "{model}"\n'
    )


def refusal(path: str, *, strict: bool = False) -> str | None:
    plan = plan_serving(config_path=Path(path), bind=None)
    try:
        refuse_missing_at_start(attrs.evolve(plan, strict=strict))
    except ConfigError as error:
        return str(error)
    return None


async def test_one_line_says_that_a_local_model_is_not_there() -> None:
    code, _, err = await run_command("serve", "--local", "/no/such.gguf")

    assert (code, err) == (
        1,
        "atomr-infer: deployment 'such': there is no '/no/such.gguf'\n",
    )


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
async def test_one_line_says_it_of_a_file_and_of_workers(
    write: Callable[[str], str], workers: tuple[str, ...]
) -> None:
    path = write(HERE + deployment("m", "/no/such.gguf"))
    code, _, err = await run_command("serve", "--config", path, *workers)

    assert (code, err) == (
        1,
        f"atomr-infer: {path}:6: deployment 'm': there is no '/no/such.gguf'\n",
    )


def test_all_that_are_missing_are_told_at_once(write: Callable[[str], str]) -> None:
    path = write(deployment("a", "/no/a.gguf") + deployment("b", "/no/b.gguf"))

    assert refusal(path) == (
        f"{path}:4: deployment 'a': there is no '/no/a.gguf'\n"
        f"{path}:8: deployment 'b': there is no '/no/b.gguf'"
    )


def test_one_that_can_be_served_is_while_others_files_may_come(
    write: Callable[[str], str],
) -> None:
    mock = '[[deployment]]\nname = "b"\nruntime = "mock"\n'
    path = write(deployment("a", "/no/a.gguf") + mock)
    told = f"{path}:4: deployment 'a': there is no '/no/a.gguf'"

    assert refusal(path) is None
    assert refusal(path, strict=True) == told


def test_another_machine_may_have_them(
    write: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(deployment("a", "/no/a.gguf"))
    plan = plan_serving(config_path=Path(path), bind=None)
    monkeypatch.setattr(type(plan), "has_machines", property(lambda _: True))

    refuse_missing_at_start(plan)  # raises nothing
