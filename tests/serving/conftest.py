"""A serving tree with the lab runtime in it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import cache, cached_property
from importlib.metadata import Distribution, EntryPoints, PackageMetadata, distributions
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from atomr_infer.errors import InferenceError
from atomr_infer.model.batch import ExecuteBatch, Message, RawChunk, Role, TokenChunk
from atomr_infer.serving.application import open_serving
from atomr_infer.serving.requests.first_attempt import OrdinaryWayError
from atomr_infer.serving.requests.request import Served, run_request
from atomr_infer.serving.requests.straight import straight
from atomr_infer.serving.shared import Serving
from tests.serving.lab import PLUGIN, LabPlugin

if TYPE_CHECKING:
    from importlib.metadata._meta import SimplePath
    from os import PathLike

    from atomr_infer.model.deployment import Deployment
    from atomr_infer.serving.replicas.replica import ReplicaState

_ENTRY_POINTS = """\
[atomr_infer.runtimes]
lab = tests.serving.lab:PLUGIN
awkward = tests.bridge.awkward:PLUGIN
"""


@attrs.define(weakref_slot=True)
class Collected:
    """A sink that remembers.

    Attributes:
        served: what ``begin`` was told.
        texts: the text of each chunk that had some.
        chunks: all of them.
        result: what the request returned.
    """

    served: list[Served] = attrs.field(factory=list)
    texts: list[str] = attrs.field(factory=list)
    chunks: list[TokenChunk | RawChunk] = attrs.field(factory=list)
    result: Served | None = None

    async def begin(self, served: Served) -> None:
        self.served.append(served)

    async def chunk(self, chunk: TokenChunk | RawChunk) -> None:
        self.chunks.append(chunk)
        if chunk.text:
            self.texts.append(chunk.text)


@attrs.frozen
class Tree:
    """A running serving tree.

    Attributes:
        serving: the tree.
        lab: its runtime.
        straight: the requests for which there was a straight way.
    """

    serving: Serving
    lab: LabPlugin
    straight: list[str] = attrs.field(factory=list)
    _numbers: Iterator[int] = attrs.field(factory=count)

    async def ask(
        self,
        text: str = "one two",
        *,
        model: str = "m",
        sink: Collected | None = None,
        **more: Any,
    ) -> Collected:
        """Ask, and return what came; ``more`` is of the ``ExecuteBatch``."""
        sink = Collected() if sink is None else sink
        batch = ExecuteBatch(
            request_id=f"r{next(self._numbers)}",
            model=model,
            messages=(Message(Role.USER, text),),
            **more,
        )
        failed = None
        way = straight(self.serving, batch, reread=lambda: batch)
        if way is not None:
            self.straight.append(batch.request_id)
            try:
                await way.run(sink)
                sink.result = way.served
            except OrdinaryWayError as ordinary:
                failed = ordinary.failed
            else:
                return sink
        sink.result = await run_request(self.serving, batch, sink, failed)
        return sink

    async def idle(self) -> None:
        """Wait until nothing runs or waits: a release is a message."""
        await until(lambda: self.serving.replicas("m")[0].outstanding == 0)

    async def replica(self, number: int = 0, deployment: str = "m") -> ReplicaState:
        return self.serving.replicas(deployment)[number]


async def until(
    condition: Callable[[], bool], within_s: float = 60.0, every_s: float = 0.01
) -> None:
    """Wait, in virtual time mostly, for a state that has no event of its own."""
    with trio.fail_after(within_s):
        while not condition():  # noqa: ASYNC110 - see above
            await trio.sleep(every_s)


async def forgotten(tree: Tree, **batch: Any) -> bool:
    """Whether nothing of a request is left, with no garbage collection."""
    sink = Collected()
    seen = weakref.ref(sink)
    gc.collect()
    gc.disable()
    try:
        with suppress(InferenceError):
            await tree.ask(sink=sink, **batch)
        del sink
        await trio.testing.wait_all_tasks_blocked()
        return seen() is None
    finally:
        gc.enable()


OpenTree = Callable[..., AbstractAsyncContextManager[Tree]]


@pytest.fixture(params=["ordinary", "straight"])
def way(request: pytest.FixtureRequest) -> str:
    """Every request is made by both ways: they differ in nothing that is seen."""
    return str(request.param)


@pytest.fixture
def lab_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Iterator[Distribution]]:
    """Where the lab is installed."""
    info = tmp_path / "lab-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(_ENTRY_POINTS)
    # What an engine's own interpreter imports the plugin from.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))

    def installed() -> Iterator[Distribution]:
        yield from distributions(path=[str(tmp_path)])
        yield from _with_plugins()

    return installed


@cache
def _with_plugins() -> tuple[Distribution, ...]:
    """What registers something of ours: to read all again costs each test more."""
    return tuple(
        _Read(distribution)
        for distribution in distributions()
        if any(point.group.startswith("atomr") for point in distribution.entry_points)
    )


class _Read(Distribution):
    """A distribution whose metadata is read once."""

    def __init__(self, distribution: Distribution) -> None:
        self._of = distribution

    def read_text(self, filename: str) -> str | None:
        return self._of.read_text(filename)

    def locate_file(self, path: str | PathLike[str]) -> SimplePath:
        return self._of.locate_file(path)

    @cached_property
    def metadata(self) -> PackageMetadata:
        return self._of.metadata

    @cached_property
    def entry_points(self) -> EntryPoints:
        return self._of.entry_points


@pytest.fixture
def open_tree(
    lab_installed: Callable[[], Iterator[Distribution]],
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> OpenTree:
    fresh = LabPlugin(passes=way == "straight")
    for field in attrs.fields(LabPlugin):
        monkeypatch.setattr(PLUGIN, field.name, getattr(fresh, field.name))

    @asynccontextmanager
    async def open_it(*deployments: Deployment) -> AsyncIterator[Tree]:
        async with open_serving(environ={}, installed=lab_installed) as serving:
            for deployment in deployments:
                await serving.deploy(deployment)
            yield Tree(serving, PLUGIN)

    return open_it
