"""Tools are called where a request requires it, by a model that knows none."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from atomr_infer.errors import InvalidRequestError, UnsupportedFeatureError
from atomr_infer.model.asks import Tool, ToolChoice, ToolMode
from atomr_infer.model.batch import (
    ExecuteBatch,
    FinishReason,
    Message,
    Role,
    Sampling,
    ToolCallDelta,
)
from atomr_infer.model.capabilities import Feature
from atomr_infer.runtimes.contract import RunnerContext
from atomr_infer_ort.plugin import PLUGIN
from tests.plugins.ort.models import write_llama

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from atomr_infer.model.deployment import Deployment

pytestmark = pytest.mark.engine

WHERE = {
    "type": "object",
    "properties": {"where": {"enum": ["inside", "outside"]}},
    "required": ["where"],
    "additionalProperties": False,
}
LOOK = Tool(name="look", parameters=json.dumps(WHERE).encode())
GO = Tool(name="go", parameters=json.dumps(WHERE).encode())


@asynccontextmanager
async def opened(deployment: Deployment) -> AsyncIterator[Any]:
    # A model of bytes is told of its tools in many of them.
    async with PLUGIN.open_runner(deployment, RunnerContext()) as runner:
        yield runner


def ask(choice: ToolChoice | None, **more: Any) -> ExecuteBatch:
    return ExecuteBatch(
        request_id="r",
        model="tiny",
        messages=(Message(Role.USER, "hi"),),
        sampling=Sampling(max_tokens=200, temperature=1.0, seed=1),
        tools=(LOOK, GO),
        tool_choice=choice,
        **more,
    )


def required(*names: str) -> ToolChoice:
    return ToolChoice(mode=ToolMode.REQUIRED, names=names)


async def calls_of(runner: Any, batch: ExecuteBatch) -> list[ToolCallDelta]:
    async with runner.execute(batch) as chunks:
        found = [chunk async for chunk in chunks]
    reasons = [c.finish_reason for c in found if c.finish_reason is not None]
    assert reasons == [FinishReason.TOOL_CALLS]
    assert "".join(chunk.text for chunk in found) == ""
    return [call for chunk in found for call in chunk.tool_calls]


@pytest.fixture
def told(tmp_path: Path, tiny: Deployment) -> Deployment:
    """The tiny model with a template that knows tools, and writes none of them."""
    folder = write_llama(tmp_path)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["chat_template"] = "{% if tools %}<tool_call>{% endif %}x"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return attrs.evolve(tiny, model=str(folder))


async def test_the_tool_that_is_named_is_called(told: Deployment) -> None:
    async with opened(told) as runner:
        assert Feature.TOOLS in runner.capabilities.features
        first, *rest = await calls_of(runner, ask(required("look")))
    assert (first.id, first.name) == ("call-r-0-0", "look")
    assert {(call.id, call.name, call.index) for call in rest} == {(None, None, 0)}
    arguments = "".join(call.arguments for call in (first, *rest))
    assert json.loads(arguments)["where"] in ("inside", "outside")
    assert len(rest) > 5  # it was streamed


async def test_one_of_several_tools_is_called(told: Deployment) -> None:
    batch = ask(required(), parallel_tool_calls=False)
    async with opened(told) as runner:
        [call] = await calls_of(runner, batch)
    assert call.name in ("look", "go")
    assert json.loads(call.arguments)["where"] in ("inside", "outside")


async def test_a_stop_string_does_not_cut_a_call_that_is_required(
    told: Deployment,
) -> None:
    sampling = Sampling(max_tokens=200, temperature=1.0, seed=1, stop=(":", "}"))
    async with opened(told) as runner:
        for choice in (required(), required("look")):
            batch = attrs.evolve(ask(choice), sampling=sampling)
            batch = attrs.evolve(batch, parallel_tool_calls=False)
            arguments = [call.arguments for call in await calls_of(runner, batch)]
            assert json.loads("".join(arguments))["where"] in ("inside", "outside")


async def test_a_schema_that_cannot_be_kept_names_the_tools(told: Deployment) -> None:
    odd = Tool(name="odd", parameters=b'{"type": "object", "minProperties": {}}')
    batch = attrs.evolve(ask(required("odd")), tools=(odd,))
    async with opened(told) as runner:
        with pytest.raises(InvalidRequestError, match="cannot be kept to") as caught:
            async with runner.execute(batch):
                pass
    assert caught.value.param == "tools"


async def test_a_tool_that_is_not_there_cannot_be_required(told: Deployment) -> None:
    async with opened(told) as runner:
        with pytest.raises(InvalidRequestError, match="names 'fly', which is not in"):
            async with runner.execute(ask(required("fly"))):
                pass
        assert runner.active == 0


async def test_a_model_may_answer_without_a_call(told: Deployment) -> None:
    async with opened(told) as runner, runner.execute(ask(None)) as chunks:
        found = [chunk async for chunk in chunks]
    assert [call for chunk in found for call in chunk.tool_calls] == []
    assert "".join(chunk.text for chunk in found)


async def test_what_a_model_decides_in_another_way_is_refused(
    told: Deployment, tmp_path: Path
) -> None:
    path = tmp_path / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings["chat_template"] = "{% if tools %}[TOOLS]{% endif %}x"
    path.write_text(json.dumps(settings))
    async with opened(told) as runner:
        with pytest.raises(UnsupportedFeatureError, match="not known here"):
            async with runner.execute(ask(None)):
                pass
        assert await calls_of(runner, ask(required("go")))
