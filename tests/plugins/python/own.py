"""Code as users bring it: kinds of functions, and ways to be wrong."""

from __future__ import annotations

import sys
import threading
import time
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import trio

from atomr_infer.errors import EngineCrashedError, InvalidRequestError
from atomr_infer.model.batch import FinishReason, TokenChunk, Usage
from atomr_infer.model.figures import Figure, Kind, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from atomr_infer_python import Request

NOT_CALLABLE = 7


async def count(
    request: Request, *, to: int = 100, gap_s: float = 0.0
) -> AsyncIterator[str]:
    for number in range(1, to + 1):
        await trio.sleep(gap_s)
        yield f"{number} "


def count_in_thread(request: Request, *, to: int = 100) -> Iterator[str]:
    for number in range(1, to + 1):
        yield f"{number} "


def whole(request: Request) -> str:
    return f"{request.text}!"


async def whole_async(request: Request) -> str:
    await trio.lowlevel.checkpoint()
    return f"{request.text}?"


async def exact(request: Request) -> AsyncIterator[object]:
    yield TokenChunk(text="all", finish_reason=FinishReason.CONTENT_FILTER)
    yield Usage(input_uncached=11, output_text=22)


async def exact_first(request: Request) -> AsyncIterator[object]:
    yield Usage(input_uncached=11, output_text=22)
    yield TokenChunk(text="all", finish_reason=FinishReason.CONTENT_FILTER)


async def wrong(request: Request) -> AsyncIterator[object]:
    yield "a "
    yield ["b"]


def returns_nothing(request: Request) -> None:
    """Nothing comes of it."""


async def raises(request: Request) -> AsyncIterator[str]:
    yield "a "
    match request.text:
        case "bug":
            raise ZeroDivisionError("in the code")
        case "memory":
            raise MemoryError
        case "refuse":
            raise InvalidRequestError("not that", param="messages")
        case "absent":
            raise NotImplementedError("no poems")
        case "exit":
            sys.exit(3)
        case "poison":
            raise EngineCrashedError("the device is lost")


def takes_nothing() -> str:
    return ""


def needs(request: Request, *, path: str) -> str:
    return path


class Model:
    """All of it, and where it ran."""

    max_concurrency = 3
    sampling = ("temperature",)
    context_tokens = 100

    def __init__(self, model: str = "none", *, step_s: float = 0.0) -> None:
        self.model = model
        self.step_s = step_s
        self.threads = {threading.get_ident()}
        self.open = 0
        self.said = ""

    def load(self) -> None:
        self.threads.add(threading.get_ident())

    def generate(self, request: Request) -> Iterator[str]:
        self.open += 1
        try:
            for word in [self.model, *request.text.split(), str(request.temperature)]:
                self.threads.add(threading.get_ident())
                time.sleep(self.step_s)
                yield f"{word} "
            yield f"{len(self.threads)} {self.open}"
        finally:
            self.open -= 1

    def embed(self, texts: list[str]) -> list[list[float]]:
        if "odd" in texts:
            return [[1.0], [2.0, 3.0]]
        return [[float(len(text)), 0.5] for text in texts]

    def count_tokens(self, text: str) -> int:
        self.threads.add(threading.get_ident())
        return len(text.split()) * 2

    def figures(self) -> dict[str, int]:
        self.threads.add(threading.get_ident())
        return {"open_requests": self.open}

    def close(self) -> None:
        self.threads.add(threading.get_ident())
        print(f"closed, {len(self.threads)} thread")


VALUES: dict[str, Any] = {
    "integer": np.int64(3),
    "single": np.float32(0.5),
    "array": np.array(7),
    "fraction": Fraction(1, 4),
    "nothing": None,
    "text": "one",
    "flag": True,
    "many": np.array([1, 2]),
    "huge": 10**400,
}
"""What a figure may stand at, and what not."""


class Told:
    """It tells figures, as the text before says."""

    how = ""

    async def generate(self, request: Request) -> AsyncIterator[str]:
        self.how = request.text
        yield "told"

    async def figures(self) -> object:  # noqa: PLR0911 - a way to tell is a return
        await trio.lowlevel.checkpoint()
        match self.how:
            case "ours":
                return [running(2), Figure("beats", Kind.COUNTER, 4, "Beats.")]
            case "bug":
                raise ZeroDivisionError("in the code")
            case "name":
                return {"a b": 1}
            case "names":
                return {1: 1}
            case "number":
                return 7
            case how if how in VALUES:
                return {"open": VALUES[how]}
            case how if how.removeprefix("as a figure: ") in VALUES:
                value = VALUES[how.removeprefix("as a figure: ")]
                return [Figure("open", Kind.GAUGE, value, "Open.")]
            case _:
                return {"depth_ratio": 0.5, "beats_total": 3}


class Flag:
    """It has another answer than how many."""

    def generate(self, request: Request) -> str:
        return request.text

    def count_tokens(self, _: str) -> bool:
        return True


class BadLoad:
    """It cannot be loaded."""

    def load(self) -> None:
        raise FileNotFoundError("weights.bin")

    async def generate(self, request: Request) -> AsyncIterator[str]:
        yield "never"


class Useless:
    """It does nothing."""


class BadNumber:
    """What it says of itself makes no sense."""

    max_concurrency = 0

    async def generate(self, request: Request) -> AsyncIterator[str]:
        yield "never"


READY = Model("made")
