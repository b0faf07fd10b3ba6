"""The table of kinds is true: its tests are there, and say all that runtimes can."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import attrs
import pytest

from atomr_infer.model.capabilities import Feature
from tests.engine.every import ENGINES, Can
from tests.engine.kinds import LORA, ROWS, RUNTIMES, TESTED, WHERE

ROOT = Path(__file__).parents[2]

# It runs what onnxruntime's plugin reads.
STANDS_ON = {"tensorrt": ("ort",)}

# Where a runner of tensors gets its capabilities.
OF_TENSORS = "atomr_infer.runtimes.tensor_runner"

IN_BOTH = {
    Can.COMPLETIONS: Feature.COMPLETIONS,
    Can.LOGPROBS: Feature.LOGPROBS,
    Can.JSON_OBJECT: Feature.JSON_OBJECT,
    Can.JSON_SCHEMA: Feature.STRUCTURED_OUTPUT,
    Can.TOOLS: Feature.TOOLS,
}


def features_in_code(runtime: str) -> set[Feature]:
    """The features that a runtime's code names."""
    found: set[Feature] = set()
    for name in (runtime, *STANDS_ON.get(runtime, ())):
        for file in (ROOT / "plugins" / f"atomr_infer_{name}").glob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                match node:
                    case ast.Attribute(ast.Name("Feature"), name):
                        found.add(Feature[name])
                    case ast.ImportFrom(module=module) if module == OF_TENSORS:
                        found.add(Feature.INFER)
    return found


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_a_runtime_says_that_it_can_is_tested_and_nothing_else_is_claimed(
    runtime: str,
) -> None:
    rows = {what for what in ROWS if isinstance(what, Feature)}
    claimed = {what for what in rows if runtime in TESTED[what]}
    assert claimed == features_in_code(runtime) & rows


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_adapters_are_claimed_where_they_are_an_option(runtime: str) -> None:
    if runtime == "python":
        fields = set()
    else:
        options = importlib.import_module(f"atomr_infer_{runtime}.options").Options
        fields = set(attrs.fields_dict(options))
    assert ("lora" in fields) is (runtime in TESTED[LORA])


@pytest.mark.parametrize(
    "test", sorted({test for row in TESTED.values() for test in row.values()})
)
def test_a_test_that_is_named_is_there(test: str) -> None:
    path, _, name = test.partition("::")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    assert name in {node.name for node in tree.body if isinstance(node, functions)}


@pytest.mark.parametrize("runtime", [name for name in RUNTIMES if WHERE[name] == "CPU"])
def test_an_engine_is_asked_and_no_fake_of_it(runtime: str) -> None:
    for test in {row[runtime] for row in TESTED.values() if runtime in row}:
        path = test.partition("::")[0]
        assert "pytest.mark.engine" in (ROOT / path).read_text(encoding="utf-8"), test


def test_both_tables_say_the_same() -> None:
    for engine in ENGINES:
        for can, feature in IN_BOTH.items():
            assert (can in engine.can) is (engine.runtime in TESTED[feature]), can
