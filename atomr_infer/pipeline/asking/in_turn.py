"""One model after the other, until one begins to answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import InferenceError
from atomr_infer.pipeline.asking.runner import goes_on_after

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from atomr_infer.model.batch import ExecuteBatch, TokenChunk
    from atomr_infer.runtimes.others import Asking


async def first_that_answers(
    batch: ExecuteBatch, asking: Asking, models: Sequence[str]
) -> AsyncGenerator[TokenChunk, None]:
    """Yield the answer of the first model that begins one.

    Raises:
        InferenceError: an answer that had begun broke, the request is wrong for
            everybody, or the last model failed.
    """
    for model in models:
        begun = False
        stream = asking.generate(attrs.evolve(batch, model=model))
        try:
            async for chunk in stream:
                begun = True
                yield chunk
        except InferenceError as error:
            if begun or model == models[-1] or not goes_on_after(error):
                raise
        else:
            return
        finally:
            await stream.close()
