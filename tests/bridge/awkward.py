"""A runtime plugin that misbehaves on request; child processes import it.

The deployment's option ``load`` says what happens at the start, the text of the
last message what a generation does: a command and its arguments.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import trio

from atomr_infer.errors import (
    ConfigError,
    ContextLengthError,
    EngineCrashedError,
    EngineError,
    InferenceError,
    NotReadyError,
)
from atomr_infer.model.batch import ExecuteBatch, FinishReason, TokenChunk, Usage
from atomr_infer.model.capabilities import Capabilities, Feature
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.embeddings import Embeddings, EmbedRequest
from atomr_infer.model.figures import Figure, running, steps
from atomr_infer.model.tensors import (
    Datatype,
    Inferred,
    InferRequest,
    Signature,
    TensorSpec,
)
from atomr_infer.runtimes.contract import Host, Progress, RunnerContext, RuntimePlugin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from atomr_infer.model.deployment import Deployment

CAPABILITIES = Capabilities(
    features=frozenset({Feature.CHAT, Feature.TOOLS, Feature.LOGPROBS}),
    sampling=frozenset({"max_tokens", "seed"}),
    max_concurrency=16,
    context_tokens=4096,
    extra_of=frozenset({Dialect.OPENAI_CHAT}),
    signature=Signature(
        inputs=(TensorSpec("x", Datatype.INT8, (-1,)),),
        outputs=(TensorSpec("y", Datatype.INT8, (-1,)),),
    ),
)


def hold_interpreter(seconds: int) -> None:
    """Sleep in C without giving the interpreter up."""
    ctypes.PyDLL(None).sleep(seconds)


def open_files() -> list[str]:
    """What this process has open besides what the event loop needs."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the listing's own
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
    return sorted(found)


SURROGATE = "\ud800"


class MuteError(Exception):
    """Cannot be told."""

    def __str__(self) -> str:
        """Fail."""
        raise ZeroDivisionError


class AwkwardRunner:
    """Does what the message says."""

    def __init__(self) -> None:
        self.capabilities = CAPABILITIES
        self.active = 0
        self.produced = 0
        self.failure = trio.Event()
        self.telling = "ok"
        self.starving = self.breaks = False
        self.grown = b""
        self.asked = 0

    async def figures(self) -> tuple[Figure, ...]:
        match self.telling:
            case "stall":
                await trio.sleep_forever()
            case "exit":
                os._exit(3)
            case "bug":
                raise KeyError("oops")
            case "twice":
                return (steps(1), steps(2))
        return (running(self.active), steps(self.produced))

    async def do_tell(self, batch: ExecuteBatch, how: str) -> AsyncIterator[TokenChunk]:
        self.telling = how
        yield TokenChunk(text="told")
        yield TokenChunk(finish_reason=FinishReason.STOP, usage=Usage(output_text=1))

    async def failed(self) -> InferenceError:
        await self.failure.wait()
        if self.breaks:
            raise RuntimeError("nobody watches the engine")
        return EngineError("poisoned", code="xid_79")

    @asynccontextmanager
    async def execute(
        self, batch: ExecuteBatch
    ) -> AsyncIterator[AsyncIterator[TokenChunk]]:
        command, *arguments = batch.messages[-1].text.split()
        if command == "refuse":
            raise NotReadyError("not now", retry_after_s=2.5)
        self.active += 1
        try:
            yield getattr(self, f"do_{command.lower()}")(batch, *arguments)
        finally:
            if command == "cling":
                with trio.CancelScope(shield=True):
                    await trio.sleep_forever()
            self.active -= 1

    async def embed(self, request: EmbedRequest) -> Embeddings:
        match request.inputs[0]:
            case "stall":
                self.active += 1
                try:
                    await trio.sleep_forever()
                finally:
                    self.active -= 1
            case "exit":
                os._exit(3)
            case "refuse":
                raise ContextLengthError("too long", param="input")
            case "starve":
                self.starving = True
                bytearray(2**62)
            case "ragged":
                return Embeddings(vectors=((1.0,), (1.0, 2.0)), usage=Usage())
        vectors = tuple((float(len(text)), 0.1) for text in request.inputs)
        return Embeddings(
            vectors=vectors, usage=Usage(input_uncached=len(vectors)), model="m"
        )

    async def infer(self, request: InferRequest) -> Inferred:
        [tensor] = request.inputs
        if request.outputs == ("refuse",):
            raise EngineError("no such kernel", code="xid_13")
        return Inferred(outputs=(tensor, tensor), usage=Usage(input_uncached=1))

    async def count_tokens(self, batch: ExecuteBatch) -> int:
        return len(batch.messages[-1].text.split())

    async def do_count(
        self, batch: ExecuteBatch, upto: str
    ) -> AsyncIterator[TokenChunk]:
        for number in range(int(upto)):
            self.produced += 1
            yield TokenChunk(text=f"{batch.request_id}:{number} ")
            await trio.lowlevel.checkpoint()
        yield TokenChunk(
            finish_reason=FinishReason.STOP,
            usage=Usage(input_uncached=3, output_text=int(upto)),
        )

    async def do_echo(self, batch: ExecuteBatch, *_: str) -> AsyncIterator[TokenChunk]:
        yield TokenChunk(text=repr(batch), extra={"raw": b'{"a":1}'}, model="m")
        yield TokenChunk(finish_reason=FinishReason.STOP)

    async def do_unicode(
        self, batch: ExecuteBatch, *_: str
    ) -> AsyncIterator[TokenChunk]:
        for text in ("héllo", "😀👩‍👩‍👧", "\x00\u2028", "עברית"):
            yield TokenChunk(text=text)

    async def do_stall(self, batch: ExecuteBatch, *_: str) -> AsyncIterator[TokenChunk]:
        yield TokenChunk(text="first")
        await trio.sleep_forever()

    do_cling = do_stall

    async def do_later(
        self, batch: ExecuteBatch, after_s: str
    ) -> AsyncIterator[TokenChunk]:
        """Say nothing, and end with an error."""
        await trio.sleep(float(after_s))
        raise ContextLengthError("too long, as it is seen now")
        yield  # type: ignore[unreachable] # makes it a generator

    async def do_step(
        self, batch: ExecuteBatch, turns: str, each_s: str
    ) -> AsyncIterator[TokenChunk]:
        """Say nothing for a while, as who reads a long prompt in pieces."""
        yield TokenChunk(text="first")
        for _ in range(int(turns)):
            await trio.sleep(float(each_s))
            self.produced += 1
        yield TokenChunk(text="last")
        await trio.sleep_forever()

    async def do_state(self, batch: ExecuteBatch, *_: str) -> AsyncIterator[TokenChunk]:
        # Not counting the generation that asks.
        yield TokenChunk(text=f"{self.active - 1} {self.produced}")

    async def do_context(
        self, batch: ExecuteBatch, *_: str
    ) -> AsyncIterator[TokenChunk]:
        yield TokenChunk(text="partial")
        raise ContextLengthError("too long", code="context_length_exceeded", param="m")

    async def do_bug(self, batch: ExecuteBatch, *_: str) -> AsyncIterator[TokenChunk]:
        yield TokenChunk(text="partial")
        raise KeyError("oops")

    async def do_say(self, batch: ExecuteBatch, how: str) -> AsyncIterator[TokenChunk]:
        """Fail, and say so in words that no frame carries."""
        yield TokenChunk(text="partial")
        match how:
            case "half":
                raise ValueError("cannot read \udcff.txt")
            case "mute":
                raise MuteError
            case "long":
                raise ValueError("x" * 40 * 2**20)
            case "odd":
                status: Any = "no number"
                raise EngineError("odd", code=f"c{SURROGATE}", status=status)

    async def do_break(self, batch: ExecuteBatch, *_: str) -> AsyncIterator[TokenChunk]:
        self.breaks = True
        self.failure.set()
        yield TokenChunk(text="last words")
        await trio.sleep_forever()

    async def do_starve(
        self, batch: ExecuteBatch, how: str, then: str = "one"
    ) -> AsyncIterator[TokenChunk]:
        self.starving = then == "all"
        yield TokenChunk(text="partial")
        match how:
            case "thread":
                raise RuntimeError("can't start new thread")
            case "memory":
                bytearray(2**62)
            case "told":
                raise EngineError("the GPU is full", code="out_of_memory")

    async def do_eat(self, batch: ExecuteBatch, *_: str) -> AsyncIterator[TokenChunk]:
        """Take memory until the kernel ends it."""
        yield TokenChunk(text="eating")
        eaten = []
        while True:
            # Not zero, or nothing would be taken.
            eaten.append(b"x" * 2**22)

    async def do_hi(self, batch: ExecuteBatch, *_: str) -> AsyncIterator[TokenChunk]:
        """Answer what a child asks after a want of memory, without end."""
        self.asked += 1
        yield TokenChunk(text="1")
        if self.starving:
            bytearray(2**62)
        while True:
            yield TokenChunk(text="1")

    async def do_asked(self, batch: ExecuteBatch, *_: str) -> AsyncIterator[TokenChunk]:
        yield TokenChunk(text=str(self.asked))

    async def do_fail(self, batch: ExecuteBatch, *_: str) -> AsyncIterator[TokenChunk]:
        self.failure.set()
        yield TokenChunk(text="last words")
        await trio.sleep_forever()

    async def do_exit(
        self, batch: ExecuteBatch, status: str
    ) -> AsyncIterator[TokenChunk]:
        yield TokenChunk(text="bye")
        os._exit(int(status))

    async def do_hold(
        self, batch: ExecuteBatch, seconds: str
    ) -> AsyncIterator[TokenChunk]:
        yield TokenChunk(text="held")
        await trio.sleep(0.2)
        hold_interpreter(int(seconds))

    async def do_big(self, batch: ExecuteBatch, size: str) -> AsyncIterator[TokenChunk]:
        yield TokenChunk(text="x" * int(size))

    async def do_write(
        self, batch: ExecuteBatch, megabytes: str
    ) -> AsyncIterator[TokenChunk]:
        for _ in range(int(megabytes)):
            sys.stdout.write(("y" * 99 + "\n") * 10_000)
        sys.stderr.write("\x1b[31mred\x1b[0m end\n")
        yield TokenChunk(text="written")

    async def do_environment(
        self, batch: ExecuteBatch, *_: str
    ) -> AsyncIterator[TokenChunk]:
        yield TokenChunk(text="\n".join([str(os.getsid(0)), *open_files()]))

    async def do_variables(
        self, batch: ExecuteBatch, *names: str
    ) -> AsyncIterator[TokenChunk]:
        yield TokenChunk(text=" ".join(os.environ[name] for name in names))

    async def do_grow(self, batch: ExecuteBatch, mib: str) -> AsyncIterator[TokenChunk]:
        """Take some memory, and keep it."""
        self.grown = b"x" * (int(mib) * 2**20)
        yield TokenChunk(text="grown")
        await trio.sleep_forever()

    async def do_fork(
        self, batch: ExecuteBatch, mib: str, helpers: str
    ) -> AsyncIterator[TokenChunk]:
        """Take some memory, and have idle forks that see it, too."""
        self.grown = b"x" * (int(mib) * 2**20)
        for _ in range(int(helpers)):
            if os.fork() == 0:
                # Not one of its parent's tasks may run here; the group's end kills it.
                signal.pause()
                os._exit(0)
        yield TokenChunk(text="forked")
        await trio.sleep_forever()

    async def do_helper(
        self, batch: ExecuteBatch, *_: str
    ) -> AsyncIterator[TokenChunk]:
        helper = subprocess.Popen(["sleep", "1000"])  # noqa: ASYNC220  returns at once
        yield TokenChunk(text=str(helper.pid))

    async def do_garbage(
        self, batch: ExecuteBatch, hexadecimal: str
    ) -> AsyncIterator[TokenChunk]:
        yield TokenChunk(text="ok")
        os.write(int(sys.argv[1]), bytes.fromhex(hexadecimal))
        await trio.sleep_forever()

    async def do_hang_up(
        self, batch: ExecuteBatch, *_: str
    ) -> AsyncIterator[TokenChunk]:
        yield TokenChunk(text="ok")
        socket.socket(fileno=os.dup(int(sys.argv[1]))).shutdown(socket.SHUT_RDWR)
        hold_interpreter(1000)


class TensorsRunner(AwkwardRunner):
    """One of tensors alone."""

    def __init__(self) -> None:
        super().__init__()
        self.capabilities = attrs.evolve(
            CAPABILITIES, features=frozenset({Feature.INFER}), sampling=frozenset()
        )

    async def infer(self, request: InferRequest) -> Inferred:
        if "starve all" in request.outputs:
            self.starving = True
        if request.outputs or self.starving:
            bytearray(2**62)
        return Inferred(outputs=request.inputs)


class SteppedRunner(AwkwardRunner):
    """One that tells what it has produced as its steps."""

    @property
    def steps(self) -> int:
        return self.produced


class OddRunner(AwkwardRunner):
    """One whose ``steps`` is no count of steps."""

    def __init__(self, steps: object) -> None:
        super().__init__()
        self.steps = steps


class AwkwardPlugin(RuntimePlugin):
    """The plugin."""

    def __init__(self, runner: Callable[[], AwkwardRunner] = AwkwardRunner) -> None:
        self._runner = runner

    name = "awkward"
    summary = "misbehaves"
    host = Host.CHILD_PROCESS

    def validate(self, deployment: Deployment) -> None:
        """Anything goes."""

    @asynccontextmanager
    async def open_runner(
        self, deployment: Deployment, context: RunnerContext
    ) -> AsyncIterator[AwkwardRunner]:
        load = deployment.options.get("load", "ok")
        await getattr(self, f"load_{load}")(deployment, context)
        yield self._runner()
        await getattr(self, f"unload_{deployment.options.get('unload', 'ok')}")()

    async def load_ok(self, deployment: Deployment, context: RunnerContext) -> None:
        """Nothing to do."""

    async def load_progress(
        self, deployment: Deployment, context: RunnerContext
    ) -> None:
        assert context.credential is not None
        context.progress(Progress(context.credential.reveal()))
        context.progress(Progress("loading weights", 1, 2, "tensors"))

    async def load_half(self, deployment: Deployment, context: RunnerContext) -> None:
        context.progress(Progress(f"reading {SURROGATE}"))
        raise ValueError(f"no such file: {SURROGATE}")

    async def load_helpers(
        self, deployment: Deployment, context: RunnerContext
    ) -> None:
        """Have two processes that take memory, neither of them much."""
        grow = "import time; grown = b'x' * (250 * 2**20); time.sleep(1000)"
        for _ in range(2):
            subprocess.Popen([sys.executable, "-c", grow])  # noqa: ASYNC220 at once
        await trio.sleep_forever()

    async def load_exit(self, deployment: Deployment, context: RunnerContext) -> None:
        print("first line", file=sys.stderr)
        print("\x1b[31mno such device\x1b[0m")
        os._exit(3)

    async def load_hang(self, deployment: Deployment, context: RunnerContext) -> None:
        context.progress(Progress("reading the weights"))
        await trio.lowlevel.checkpoint()
        await trio.sleep_forever()

    async def load_hold(self, deployment: Deployment, context: RunnerContext) -> None:
        context.progress(Progress("holding the interpreter"))
        await trio.sleep(0.2)
        hold_interpreter(1000)

    async def load_config_error(
        self, deployment: Deployment, context: RunnerContext
    ) -> None:
        raise ConfigError("no such file: 'x.gguf'")

    async def load_lost(self, deployment: Deployment, context: RunnerContext) -> None:
        raise EngineCrashedError("the core died")

    async def load_bug(self, deployment: Deployment, context: RunnerContext) -> None:
        raise ZeroDivisionError("in the plugin")

    async def unload_ok(self) -> None:
        """Nothing to do."""

    async def unload_mark(self) -> None:
        print("unloaded")

    async def unload_hang(self) -> None:
        await trio.sleep_forever()

    async def unload_hold(self) -> None:
        time.sleep(1000)  # noqa: ASYNC251  the event loop is to be blocked


PLUGIN = AwkwardPlugin()
TENSORS = AwkwardPlugin(TensorsRunner)
STEPPED = AwkwardPlugin(SteppedRunner)
NAMED = AwkwardPlugin(partial(OddRunner, ["tokenize", "run"]))
TRUE = AwkwardPlugin(partial(OddRunner, True))
NOT_A_PLUGIN = 7
