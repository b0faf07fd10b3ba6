"""Pipelines over scripted models, in a serving tree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import asynccontextmanager
from importlib.metadata import Distribution, distribution, distributions
from itertools import count
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import pytest
import trio

from atomr_infer.errors import InvalidRequestError, UpstreamError
from atomr_infer.model.batch import ExecuteBatch, Message, RawChunk, Role, TokenChunk
from atomr_infer.model.capabilities import Capabilities, Feature
from atomr_infer.model.collected import Collected
from atomr_infer.model.deployment import Deployment, RetryPolicy
from atomr_infer.model.embeddings import Embeddings, EmbedRequest
from atomr_infer.model.prices import Price, Rates
from atomr_infer.model.tensors import (
    ANY_SIZE,
    Datatype,
    Inferred,
    InferRequest,
    Signature,
    TensorSpec,
)
from atomr_infer.model.usage import Usage
from atomr_infer.serving.application import open_serving
from atomr_infer.serving.requests.request import run_request
from atomr_infer.serving.requests.served import Served, Spent
from atomr_infer.serving.shared import Serving
from atomr_infer.testing.mock import MockPlugin, MockRunner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from atomr_infer.runtimes.contract import RunnerContext


# A dollar for a thousand tokens read, and two for a thousand written.
PRICE = Price(rates=Rates(input=1000.0, output=2000.0))
"""A price in round numbers: a tenth of a cent for a token."""


def model(name: str, *, retries: int = 1, **options: Any) -> Deployment:
    """Return a scripted model."""
    price = options.pop("price", PRICE)
    more = {k: options.pop(k) for k in ("fallbacks", "timeouts") if k in options}
    return Deployment(
        name=name,
        runtime="seen",
        options=options,
        price=price,
        retry=RetryPolicy(max_attempts=retries, backoff_s=0.01),
        **more,
    )


def cascade(*stages: Any, name: str = "auto", **options: Any) -> Deployment:
    """Return a cascade over models."""
    return Deployment(
        name=name, runtime="cascade", options={"stages": list(stages), **options}
    )


@attrs.define
class Heard:
    """A sink that remembers.

    Attributes:
        served: what it was told at the beginning.
        chunks: what came.
        done: what the request returned.
    """

    served: Served | None = None
    chunks: list[TokenChunk] = attrs.field(factory=list)
    done: Served | None = None

    async def begin(self, served: Served) -> None:
        self.served = served

    async def chunk(self, chunk: TokenChunk | RawChunk) -> None:
        assert isinstance(chunk, TokenChunk)
        self.chunks.append(chunk)

    @property
    def text(self) -> str:
        return "".join(chunk.text for chunk in self.chunks)

    @property
    def whole(self) -> Collected:
        collected = Collected()
        for chunk in self.chunks:
            collected.add(chunk)
        return collected

    @property
    def verdicts(self) -> list[str]:
        """What became of each stage, without what it took."""
        assert self.done is not None
        return [stage.partition(" ")[0] + _told(stage) for stage in self.done.stages]


def _told(stage: str) -> str:
    return f" {stage[stage.index('(') :]}" if "(" in stage else ""


@attrs.frozen
class Tree:
    """A serving tree.

    Attributes:
        serving: the tree.
        runners: the models' runners, by name.
        paid: what the ledger has taken.
    """

    serving: Serving
    runners: dict[str, MockRunner]
    paid: list[Spent]
    _numbers: Iterator[int] = attrs.field(factory=count)

    async def ask(
        self,
        text: str = "one two three",
        *,
        model: str = "auto",
        heard: Heard | None = None,
        **more: Any,
    ) -> Heard:
        heard = Heard() if heard is None else heard
        batch = ExecuteBatch(
            request_id=f"r{next(self._numbers)}",
            model=model,
            messages=(Message(Role.USER, text),),
            **more,
        )
        heard.done = await run_request(self.serving, batch, heard)
        return heard

    def ledger(self) -> list[tuple[str, int]]:
        """Return who was paid for how many tokens, in order."""
        return [
            (spent.deployment, spent.usage.prompt_tokens + spent.usage.output_tokens)
            for spent in self.paid
        ]


OpenTree: TypeAlias = "Callable[..., AbstractAsyncContextManager[Tree]]"

# The mock itself, whose runners a test can look at.
_ENTRY_POINTS = """\
[atomr_infer.runtimes]
seen = tests.pipeline.conftest:SEEN
tensors = tests.pipeline.conftest:TENSORS
vectors = tests.pipeline.conftest:VECTORS
"""


@attrs.frozen
class _Seen(MockPlugin):
    name = "seen"


class VectorRunner(MockRunner):
    """Embeds a text as its length, and remembers what it was asked.

    Attributes:
        embedded: the inputs of each request.
    """

    def __init__(self) -> None:
        super().__init__()
        self.embedded: list[tuple[object, ...]] = []

    @property
    def capabilities(self) -> Capabilities:
        features = frozenset({Feature.EMBEDDINGS, Feature.CLASSIFY})
        return Capabilities(features=features)

    async def embed(self, request: EmbedRequest) -> Embeddings:
        self.embedded.append(request.inputs)
        await trio.sleep(1.0)
        if "bad" in request.inputs:
            raise UpstreamError("it cannot be embedded")
        if "refused" in request.inputs:
            raise InvalidRequestError("it is no text")
        vectors = tuple((float(len(each)),) for each in request.inputs)
        return Embeddings(
            vectors=vectors,
            usage=Usage(input_uncached=len(request.inputs)),
            labels=("long",) if request.classifies else (),
        )


@attrs.frozen
class _Vectors(_Seen):
    name = "vectors"

    @asynccontextmanager
    async def open_runner(
        self, deployment: Deployment, context: RunnerContext
    ) -> AsyncIterator[VectorRunner]:
        del deployment, context
        runner = VectorRunner()
        self.on_open(runner)
        yield runner


TAKES = Signature(
    inputs=(TensorSpec("x", Datatype.FP32, (ANY_SIZE,)),),
    outputs=(
        TensorSpec("y", Datatype.FP32, (ANY_SIZE,)),
        TensorSpec("z", Datatype.FP32, (ANY_SIZE,)),
    ),
)


class TensorsRunner(MockRunner):
    """Gives its tensor back under two names, and remembers what it was asked.

    It breaks at what begins with -1.

    Attributes:
        inferred: the requests.
        ended: how many of them are over.
    """

    capabilities = Capabilities(features=frozenset({Feature.INFER}), signature=TAKES)

    def __init__(self) -> None:
        super().__init__()
        self.inferred: list[InferRequest] = []
        self.ended = 0

    async def infer(self, request: InferRequest) -> Inferred:
        self.inferred.append(request)
        try:
            await trio.sleep(1.0)
        finally:
            self.ended += 1
        [x] = request.inputs
        if x.values()[:1] == [-1.0]:
            raise UpstreamError("it breaks")
        wanted = request.outputs or ("y", "z")
        return Inferred(
            outputs=tuple(attrs.evolve(x, name=name) for name in wanted),
            usage=Usage(input_uncached=x.shape[0]),
        )


@attrs.frozen
class _Tensors(_Seen):
    name = "tensors"

    @asynccontextmanager
    async def open_runner(
        self, deployment: Deployment, context: RunnerContext
    ) -> AsyncIterator[TensorsRunner]:
        del deployment, context
        runner = TensorsRunner()
        self.on_open(runner)
        yield runner


OPENED: list[MockRunner] = []
SEEN = _Seen(OPENED.append)
VECTORS = _Vectors(OPENED.append)
TENSORS = _Tensors(OPENED.append)


@pytest.fixture
def open_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenTree:
    """Open a tree with some deployments; their runners are in the tree."""
    info = tmp_path / "seen-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: seen\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(_ENTRY_POINTS)

    def installed() -> Iterator[Distribution]:
        yield from distributions(path=[str(tmp_path)])
        yield distribution("atomr-infer")

    @asynccontextmanager
    async def open_it(*deployments: Deployment) -> AsyncIterator[Tree]:
        OPENED.clear()
        runners: dict[str, MockRunner] = {}
        async with open_serving(environ={}, installed=installed) as serving:
            for deployment in deployments:
                await serving.deploy(deployment)
                if deployment.runtime in (SEEN.name, VECTORS.name, TENSORS.name):
                    runners[deployment.name] = OPENED[-1]
            paid: list[Spent] = []
            note = serving.usage.note

            def noted(spent: list[Spent], *more: Any) -> None:
                # Written each second, and gone from where it waits.
                paid.extend(spent)
                note(spent, *more)

            monkeypatch.setattr(serving.usage, "note", noted)
            yield Tree(serving, runners, paid)

    return open_it
