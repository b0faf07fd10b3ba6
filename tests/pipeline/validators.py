"""Functions that judge answers, as an operator's module has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from atomr_infer.model.batch import ExecuteBatch

NOT_A_FUNCTION = 7


def wants_digits(batch: ExecuteBatch, text: str) -> bool | str:
    assert batch.model == "auto"
    return any(c.isdigit() for c in text) or "there are no digits"


async def waits_and_refuses(batch: ExecuteBatch, text: str) -> bool:
    await trio.lowlevel.checkpoint()
    return batch.model == text


def crashes(batch: ExecuteBatch, text: str) -> bool:
    raise KeyError(text)


def says_much(_: ExecuteBatch, text: str) -> str:
    return f"{text}\nrequest r-1 \r\x1b[2K" + "y" * 1000


def scores(batch: ExecuteBatch) -> dict[str, float]:
    text = batch.messages[-1].text
    return {"code": float("def" in text), "law": 0.6, "art": 0.5}


async def says_law(batch: ExecuteBatch) -> str:
    await trio.lowlevel.checkpoint()
    return f"Law, as {batch.request_id} is."


def chooses_nothing(batch: ExecuteBatch) -> str:
    raise ValueError(batch.model)


class SaysLaw:
    """A gate with something to remember, and a call that waits."""

    async def __call__(self, batch: ExecuteBatch) -> str:
        return await says_law(batch)


says_law_as_an_object = SaysLaw()
