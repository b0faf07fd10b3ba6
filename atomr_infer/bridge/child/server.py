"""The child's side: what ``python -m atomr_infer.bridge.child`` runs.

It opens the runner that the parent names, runs what the parent asks, and says
what becomes of it (``frames``).  Standard output and error belong to the
engine; the bridge speaks over its own socket, so a ``print`` cannot break it.

It ends when the parent says so, when the parent dies (``lineage``), or when the
socket closes.
"""

from __future__ import annotations

import importlib
import logging
import os
import socket
import traceback
from typing import Any

import trio

from atomr.core.exits import unwrap
from atomr_infer.bridge.child.memory import NO_MEMORY, MemoryCheck, ask, is_want
from atomr_infer.bridge.protocol.calls import answer_to
from atomr_infer.bridge.protocol.deployment_values import deployment_from_wire
from atomr_infer.bridge.protocol.frames import (
    PROTOCOL_VERSION,
    Cancel,
    Chunk,
    Close,
    Count,
    Credit,
    Embed,
    End,
    Execute,
    Failed,
    FrameError,
    Hello,
    Infer,
    Measure,
    Open,
    ParentFrame,
    Ping,
    Pong,
    Question,
    Ready,
    StartFailed,
    Starting,
    Text,
    parent_reader,
)
from atomr_infer.bridge.protocol.link import Link
from atomr_infer.bridge.protocol.streams import ChildStream
from atomr_infer.bridge.protocol.values import (
    ErrorWire,
    batch_from_wire,
    capabilities_to_wire,
    chunk_to_wire,
    error_to_wire,
    is_bare_text,
    progress_to_wire,
)
from atomr_infer.bridge.system.lineage import (
    OrphanedError,
    abandon_ship,
    die_with_parent,
    guard_group,
)
from atomr_infer.errors import (
    OUT_OF_MEMORY,
    ConfigError,
    EngineCrashedError,
    EngineError,
    EngineStartError,
    InferenceError,
    InternalError,
    PluginError,
    encode,
)
from atomr_infer.model.batch import TokenChunk
from atomr_infer.model.secret import Secret
from atomr_infer.runtimes.contract import (
    ModelRunner,
    Progress,
    RunnerContext,
    RuntimePlugin,
    Stepped,
)

_NO_TRACEBACK = b"no memory for a traceback\n"

log = logging.getLogger(__name__)


class Server:
    """Serves one parent over one link."""

    def __init__(self, link: Link[ParentFrame]) -> None:
        self._link = link
        self._opened = trio.Event()
        self._open: Open | None = None
        self._closing = trio.Event()
        self._streams: dict[int, ChildStream] = {}
        self._runner: ModelRunner | None = None
        self._generations: trio.Nursery | None = None
        self._memory = MemoryCheck()

    async def serve(self) -> None:
        """Serve until the parent says ``Close`` or the runner cannot be opened."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._link.write_forever)
            nursery.start_soon(self._read)
            self._link.send_nowait(Hello(PROTOCOL_VERSION))
            await self._opened.wait()
            await self._run()
            await self._link.flush()
            nursery.cancel_scope.cancel()

    async def _run(self) -> None:
        assert self._open is not None
        frame = self._open
        try:
            plugin = load_plugin(frame.plugin_ref)
            deployment = deployment_from_wire(frame.deployment)
            context = RunnerContext(
                credential=(
                    None if frame.credential is None else Secret(frame.credential)
                ),
                progress=self._report,
            )
            async with plugin.open_runner(deployment, context) as runner:
                self._link.send_nowait(Ready(capabilities_to_wire(runner.capabilities)))
                await self._run_generations(runner)
        except Exception as error:  # noqa: BLE001  the process's last boundary: reported to the parent
            if self._runner is None:
                self._link.send_nowait(StartFailed(start_error(error)))
            else:
                log_bug(error)
                self._link.send_nowait(Failed(crash_error(error)))

    def _report(self, progress: Progress) -> None:
        self._link.send_nowait(Starting(progress_to_wire(progress)))

    async def _run_generations(self, runner: ModelRunner) -> None:
        self._runner = runner
        try:
            async with trio.open_nursery() as self._generations:
                self._generations.start_soon(self._watch, runner)
                await self._closing.wait()
                self._generations.cancel_scope.cancel()
        except Exception as error:  # noqa: BLE001  reported to the parent
            # Before the runner is closed, which may take long: requests wait for it.
            log_bug(error)
            self._link.send_nowait(Failed(crash_error(error)))

    async def _watch(self, runner: ModelRunner) -> None:
        error = await runner.failed()
        self._link.send_nowait(Failed(error_to_wire(encode(error))))

    # --- frames -------------------------------------------------------------

    async def _read(self) -> None:
        while (frames := await self._link.receive()) is not None:
            for frame in frames:
                self._handle(frame)
        abandon_ship()

    def _handle(self, frame: ParentFrame) -> None:
        match frame:
            case Open():
                self._open = frame
                self._opened.set()
            case Execute() | Embed() | Count() | Infer() | Measure():
                self._start(frame)
            case Credit(number, chunks):
                if number in self._streams:
                    self._streams[number].add_credit(chunks)
            case Cancel(number):
                if number in self._streams:
                    self._streams[number].scope.cancel()
            case Ping():
                self._link.send_nowait(Pong(_steps_of(self._runner)))
            case Close():
                self._closing.set()

    def _start(self, frame: Execute | Question) -> None:
        # The parent executes only after Ready, so both are there.
        assert self._generations is not None
        credit = frame.credit if isinstance(frame, Execute) else 0
        stream = self._streams[frame.stream] = ChildStream(credit)
        self._generations.start_soon(self._generate, frame, stream)

    async def _generate(self, frame: Execute | Question, stream: ChildStream) -> None:
        error: ErrorWire | None = None
        bug: Exception | None = None
        try:
            with stream.scope:
                await self._answer(frame, stream)
        except Exception as raised:  # noqa: BLE001  a plugin's bug ends its stream, not the engine
            bug, error = raised, told_of(raised)
        finally:
            del self._streams[frame.stream]
        # Not above: who is cancelled from outside ends with the engine, of which the
        # parent is told; an end of its own would say that its answer is whole.
        self._link.send_nowait(End(frame.stream, error))
        if bug is not None and error is not None:
            self._note(bug, error)

    async def _answer(self, frame: Execute | Question, stream: ChildStream) -> None:
        assert self._runner is not None
        if isinstance(frame, Count | Measure):
            # Neither runs the model.
            self._link.send_nowait(await answer_to(self._runner, frame))
            return
        async with self._memory.inside():
            if isinstance(frame, Execute):
                await self._forward(frame, stream)
            else:
                self._link.send_nowait(await answer_to(self._runner, frame))

    def _note(self, raised: Exception, error: ErrorWire) -> None:
        """Log what is no error of a runner's own, and look into a want of memory."""
        assert self._generations is not None
        if is_want(error):
            self._generations.start_soon(self._look, error)
        # Last, for it takes memory itself.
        if not isinstance(raised, InferenceError):
            log_bug(raised)

    async def _look(self, want: ErrorWire) -> None:
        """End the process if it has no memory for anything."""
        if await self._memory.finds_none(self._starves):
            ended = EngineCrashedError(want.message, code=OUT_OF_MEMORY)
            self._link.send_nowait(Failed(error_to_wire(encode(ended))))

    async def _starves(self) -> bool:
        assert self._runner is not None
        assert self._open is not None
        asked = self._open.deployment
        try:
            await ask(self._runner, asked.model or asked.name)
        except Exception as raised:  # noqa: BLE001  as a client's request is met
            error = told_of(raised)
            log.warning("asked for little, after a want of memory: %s", error.message)
            return is_want(error)
        return False

    async def _forward(self, frame: Execute, stream: ChildStream) -> None:
        assert self._runner is not None
        async with self._runner.execute(batch_from_wire(frame.batch)) as chunks:
            async for chunk in chunks:
                # A request in a child has no source, so no answer is raw.
                assert isinstance(chunk, TokenChunk), chunk
                await stream.take_credit()
                self._link.send_nowait(_frame_of(frame.stream, chunk))


def _steps_of(runner: ModelRunner | None) -> int | None:
    if runner is None or not isinstance(runner, Stepped):
        return None
    steps: object = runner.steps
    # Somebody else's runner may mean something else by that name.
    return steps if type(steps) is int else None


def _frame_of(number: int, chunk: TokenChunk) -> Text | Chunk:
    if is_bare_text(chunk):
        return Text(number, chunk.text, chunk.index)
    return Chunk(number, chunk_to_wire(chunk))


def load_plugin(plugin_ref: str) -> RuntimePlugin:
    """Import ``module:attribute``.

    Raises:
        PluginError: there is no such object, or it is not a runtime plugin.
    """
    plugin = load_object(plugin_ref)
    if not isinstance(plugin, RuntimePlugin):
        raise PluginError(f"{plugin_ref!r} is not a runtime plugin but {plugin!r}")
    return plugin


def load_object(ref: str) -> Any:  # noqa: ANN401  whatever is there
    """Import ``module:attribute``.

    Raises:
        PluginError: there is no such object.
    """
    module_name, _, attribute = ref.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise PluginError(
            f"the engine's interpreter cannot import {ref!r}: {error}"
        ) from error


def start_error(error: Exception) -> ErrorWire:
    """Return what the parent is told of a runner that could not be opened."""
    if isinstance(error, InferenceError):
        return error_to_wire(encode(error))
    if isinstance(error, ConfigError):
        return error_to_wire(encode(EngineStartError(str(error))))
    traceback.print_exception(error)
    return error_to_wire(encode(EngineStartError(_one_line(error))))


def crash_error(error: Exception) -> ErrorWire:
    """Return what the parent is told of an engine that cannot go on."""
    cause = unwrap(error)
    if isinstance(cause, InferenceError):
        return error_to_wire(encode(cause))
    why = f"the engine's process cannot go on: {_one_line(cause)}"
    return error_to_wire(encode(EngineCrashedError(why)))


def told_of(error: Exception) -> ErrorWire:
    """Return what the parent is told of a generation or a question that failed."""
    try:
        return stream_error(error)
    except MemoryError:
        return NO_MEMORY


def stream_error(error: Exception) -> ErrorWire:
    """Return what was raised as the parent is told of it.

    Raises:
        MemoryError: there is none to say it.
    """
    if isinstance(error, InferenceError):
        return error_to_wire(encode(error))
    if wants_memory(error):
        why = f"the engine's process is out of memory: {_one_line(error)}"
        return error_to_wire(encode(EngineError(why, code=OUT_OF_MEMORY)))
    if isinstance(error, FrameError):
        return error_to_wire(encode(InternalError(f"the answer is lost: {error}")))
    return error_to_wire(
        encode(InternalError(f"the runtime failed: {_one_line(error)}"))
    )


def log_bug(error: Exception) -> None:
    """Write a traceback, if there is memory for it."""
    try:
        traceback.print_exception(error)
    except MemoryError:
        os.write(2, _NO_TRACEBACK)


def wants_memory(error: Exception) -> bool:
    """Whether a process had no memory for something, or for a thread's stack.

    >>> wants_memory(MemoryError()), wants_memory(RuntimeError("no"))
    (True, False)
    """
    no_thread = type(error) is RuntimeError and str(error) == "can't start new thread"
    return no_thread or isinstance(error, MemoryError)


def _one_line(error: BaseException) -> str:
    name = type(error).__name__
    try:
        return " ".join(f"{name}: {error}".split())
    except Exception as broken:  # noqa: BLE001  somebody else's, and told with the rest
        return f"{name}, whose text cannot be told: {type(broken).__name__}"


async def _main(fd: int) -> None:
    # Engines start helpers; the socket is not for them.
    os.set_inheritable(fd, False)  # noqa: FBT003  positional-only
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(socket.socket(fileno=fd)))
    await Server(Link(stream, parent_reader())).serve()


def main(arguments: list[str]) -> None:
    """Run the child."""
    fd, parent_pid = map(int, arguments)
    try:
        die_with_parent(parent_pid)
    except OrphanedError:
        abandon_ship()
    guard_group()
    logging.basicConfig(
        level=logging.INFO, format="%(levelname)s %(name)s: %(message)s"
    )
    trio.run(_main, fd)
