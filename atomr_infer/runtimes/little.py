"""Asking a runner for the least that shows whether it can serve.

Whoever wants to know whether an engine answers, or has memory for anything, asks it for
what it is for: a few tokens, a vector, a judgement of one short text; of tensors the
smallest that its signature takes, all zero.  What such a model says of zeros means
nothing, and one that refuses them has answered.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from atomr_infer.model.batch import ExecuteBatch, Message, Role, Sampling
from atomr_infer.model.capabilities import Feature
from atomr_infer.model.embeddings import EmbedRequest
from atomr_infer.model.tensors import (
    ANY_SIZE,
    InferRequest,
    Signature,
    Tensor,
    TensorSpec,
    joined,
)
from atomr_infer.runtimes.contract import Embedder, TensorRunner

if TYPE_CHECKING:
    from atomr_infer.runtimes.contract import ModelRunner

TEXT = "Hi"
"""What is asked; a text that any model can read."""


async def ask_little(
    runner: ModelRunner, *, request_id: str, model: str, tokens: int
) -> None:
    """Have a runner make the least that it is for; return when it has.

    Args:
        runner: who is asked; one that says nothing of what it can is not.
        request_id: how the question is called.
        model: what the runtime is asked for.
        tokens: how many are made by who writes text, at least 1.

    Raises:
        Exception: whatever it raises.

    Cancellation: ends the question.
    """
    can = runner.capabilities
    if not can.features.isdisjoint((Feature.CHAT, Feature.COMPLETIONS)):
        batch = ExecuteBatch(
            request_id=request_id,
            model=model,
            messages=(Message(Role.USER, TEXT),),
            prompt=None if Feature.CHAT in can.features else TEXT,
            sampling=Sampling(max_tokens=tokens),
        )
        async with runner.execute(batch) as chunks:
            made = 0
            async for _ in chunks:
                made += 1
                # A function of the user's may know no max_tokens.
                if made == tokens:
                    return
    elif isinstance(runner, Embedder) and not can.features.isdisjoint(_OF_TEXTS):
        # Of what it cannot, nothing is said; each of the three is another request.
        kind = next(each for each in _OF_TEXTS if each in can.features)
        await runner.embed(
            EmbedRequest(
                request_id=request_id,
                model=model,
                inputs=(TEXT,),
                query=TEXT if kind is Feature.RERANK else None,
                classifies=kind is Feature.CLASSIFY,
            )
        )
    elif (
        isinstance(runner, TensorRunner)
        and Feature.INFER in can.features
        and can.signature is not None
    ):
        await runner.infer(
            InferRequest(
                request_id=request_id, model=model, inputs=least_inputs(can.signature)
            )
        )


_OF_TEXTS = (Feature.EMBEDDINGS, Feature.RERANK, Feature.CLASSIFY)


def least_inputs(signature: Signature) -> tuple[Tensor, ...]:
    """Return the smallest tensors that a model takes, of zeros and empty texts.

    >>> from atomr_infer.model.tensors import Datatype
    >>> spec = TensorSpec("x", Datatype.INT64, (ANY_SIZE, 3))
    >>> [tensor] = least_inputs(Signature((spec,), ()))
    >>> tensor.shape, tensor.values()
    ((1, 3), [0, 0, 0])
    """
    return tuple(map(_zeros, signature.inputs))


def _zeros(spec: TensorSpec) -> Tensor:
    shape = tuple(1 if size == ANY_SIZE else size for size in spec.shape)
    each = spec.datatype.size_bytes
    count = prod(shape)
    data = joined([b""] * count) if each is None else bytes(count * each)
    return Tensor(spec.name, spec.datatype, shape, data)
