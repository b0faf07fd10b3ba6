"""A block that counts as active, whatever it does.

By hand, because one generator for each request costs as much as the rest of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

T = TypeVar("T")


class Active(Protocol):
    """Who counts.

    Attributes:
        active: blocks that are entered, or being entered.
    """

    active: int


class Counted(Generic[T]):
    """Another block, counted from its beginning to its end."""

    __slots__ = ("_block", "_client")

    def __init__(self, client: Active, block: AbstractAsyncContextManager[T]) -> None:
        self._client = client
        self._block = block

    async def __aenter__(self) -> T:
        self._client.active += 1
        try:
            return await self._block.__aenter__()
        except BaseException:
            self._client.active -= 1
            raise

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        try:
            return await self._block.__aexit__(exc_type, exc, traceback)
        finally:
            self._client.active -= 1
