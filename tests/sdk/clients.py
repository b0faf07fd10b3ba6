"""The real OpenAI SDK in its three shapes, behind one interface.

The gateway under test runs in the test's own trio loop, so a blocking client
needs a thread, and an asyncio client a thread with a loop of its own.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import attrs
import openai
import trio
from openai import AsyncOpenAI, OpenAI

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

KEY = "sk-client-0123456789"
ASKED = [{"role": "user", "content": "one two three"}]


@attrs.frozen
class Streamed:
    """What a client saw of a stream.

    Attributes:
        chunks: in order.
        error: what ended it; None: it ended by itself.
    """

    chunks: list[Any]
    error: Exception | None = None

    @property
    def text(self) -> str:
        """The first choice's text."""
        return self.choice_text(0)

    def choice_text(self, index: int) -> str:
        """The text of one choice."""
        deltas = [
            choice.delta.content or ""
            for chunk in self.chunks
            for choice in chunk.choices
            if choice.index == index
        ]
        return "".join(deltas)


class Client(Protocol):
    """One SDK client; each call opens and closes one, and never retries."""

    async def chat(self, **members: Any) -> Any:
        """Return a whole answer, with its headers: ``(completion, headers)``."""
        ...

    async def stream(self, *, leave_after: int | None = None, **members: Any) -> Any:
        """Return :class:`Streamed`; leave after so many chunks."""
        ...

    async def models(self) -> list[str]:
        """The ids of all models."""
        ...

    async def model(self, name: str) -> Any:
        """One model."""
        ...


def arguments(members: dict[str, Any]) -> dict[str, Any]:
    return {"model": "m", "messages": ASKED, **members}


@attrs.frozen
class SyncClient:
    """``openai.OpenAI`` in a thread."""

    base_url: str

    async def _run(self, work: Callable[[OpenAI], T]) -> T:
        def run() -> T:
            with OpenAI(
                api_key=KEY, base_url=self.base_url, max_retries=0, timeout=20
            ) as client:
                return work(client)

        # A client that hangs must fail its test and not the whole run.
        return await trio.to_thread.run_sync(run, abandon_on_cancel=True)

    async def chat(self, **members: Any) -> Any:
        def work(client: OpenAI) -> Any:
            raw = client.chat.completions.with_raw_response.create(**arguments(members))
            return raw.parse(), dict(raw.headers)

        return await self._run(work)

    async def stream(self, *, leave_after: int | None = None, **members: Any) -> Any:
        def work(client: OpenAI) -> Streamed:
            chunks: list[Any] = []
            with client.chat.completions.create(
                stream=True, **arguments(members)
            ) as stream:
                try:
                    for chunk in stream:
                        chunks.append(chunk)
                        if len(chunks) == leave_after:
                            break
                except openai.APIError as error:
                    return Streamed(chunks, error)
            return Streamed(chunks)

        return await self._run(work)

    async def models(self) -> list[str]:
        return await self._run(lambda client: [m.id for m in client.models.list()])

    async def model(self, name: str) -> Any:
        return await self._run(lambda client: client.models.retrieve(name))


@attrs.frozen
class TrioClient:
    """``openai.AsyncOpenAI`` in the test's trio loop."""

    base_url: str

    async def _run(self, work: Callable[[AsyncOpenAI], Awaitable[T]]) -> T:
        return await self._open(work)

    async def _open(self, work: Callable[[AsyncOpenAI], Awaitable[T]]) -> T:
        async with AsyncOpenAI(
            api_key=KEY, base_url=self.base_url, max_retries=0, timeout=20
        ) as client:
            return await work(client)

    async def chat(self, **members: Any) -> Any:
        async def work(client: AsyncOpenAI) -> Any:
            create = client.chat.completions.with_raw_response.create
            raw = await create(**arguments(members))
            return raw.parse(), dict(raw.headers)

        return await self._run(work)

    async def stream(self, *, leave_after: int | None = None, **members: Any) -> Any:
        async def work(client: AsyncOpenAI) -> Streamed:
            chunks: list[Any] = []
            async with await client.chat.completions.create(
                stream=True, **arguments(members)
            ) as stream:
                try:
                    async for chunk in stream:
                        chunks.append(chunk)
                        if len(chunks) == leave_after:
                            break
                except openai.APIError as error:
                    return Streamed(chunks, error)
            return Streamed(chunks)

        return await self._run(work)

    async def models(self) -> list[str]:
        async def work(client: AsyncOpenAI) -> list[str]:
            return [m.id async for m in client.models.list()]

        return await self._run(work)

    async def model(self, name: str) -> Any:
        return await self._run(lambda client: client.models.retrieve(name))


class AsyncioClient(TrioClient):
    """``openai.AsyncOpenAI`` in an asyncio loop, which a thread runs."""

    async def _run(self, work: Callable[[AsyncOpenAI], Awaitable[T]]) -> T:
        def run() -> T:
            return asyncio.run(self._open(work))

        return await trio.to_thread.run_sync(run, abandon_on_cancel=True)
