"""The routes of the Open Inference Protocol: a model's tensors, and what it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from atomr_infer.errors import InternalError, ModelNotFoundError, NotReadyError
from atomr_infer.gateway.access.entitled import entitled
from atomr_infer.gateway.api.whole_routes import WholeAnswer
from atomr_infer.gateway.exchanges.answer_headers import cost_headers, whole_headers
from atomr_infer.model.tensors import InferRequest
from atomr_infer.serving.replicas.readiness import ELSEWHERE
from atomr_infer.serving.requests.whole_calls import infer
from atomr_infer.wire.open_inference.answer import described, inferred, ready
from atomr_infer.wire.open_inference.request import parse_infer, path_model

if TYPE_CHECKING:
    from atomr_infer.gateway.exchanges.routes import Target
    from atomr_infer.model.tensors import Inferred
    from atomr_infer.serving.shared import Serving
    from atomr_infer.wire.ingress import Call
    from atomr_infer.wire.open_inference.request import InferAsked

# Some megabytes of numbers take a second to read, and nobody else would be answered.
_THREAD_BYTES = 64 * 1024


async def tensors(serving: Serving, call: Call, target: Target) -> WholeAnswer:
    """Answer a request for a model's tensors, or about them.

    Raises:
        InferenceError: it cannot be answered.
    """
    match target.verb:
        case "infer":
            return await _infer(serving, call, target)
        case "ready":
            return _ready(serving, call)
        case _:
            return await _describe(serving, call, target)


async def _infer(serving: Serving, call: Call, target: Target) -> WholeAnswer:
    asked = await parsed(call)
    request = entitled(asked.request, call.visitor, call.headers)
    found = await infer(serving, request)
    body, more = await written(asked, found.value, request.model)
    headers = (
        *more,
        *whole_headers(found.served, target.dialect),
        *cost_headers(found.served.cost),
    )
    return WholeAnswer(body, headers, found.took_s)


async def parsed(call: Call) -> InferAsked:
    """Return the request that a call's body holds; in a thread where it is large.

    Raises:
        InvalidRequestError: with ``param`` naming the member at fault.
    """
    if len(call.body) < _THREAD_BYTES:
        return parse_infer(call)
    return await trio.to_thread.run_sync(parse_infer, call)


async def written(
    asked: InferAsked, found: Inferred, model: str
) -> tuple[bytes, tuple[tuple[bytes, bytes], ...]]:
    """Return an answer's body and headers; written in a thread where it is large.

    Raises:
        InvalidRequestError: JSON has no form for an output that is wanted so.
    """
    if sum(len(output.data) for output in found.outputs) < _THREAD_BYTES:
        return inferred(asked, found, model)
    return await trio.to_thread.run_sync(inferred, asked, found, model)


async def _describe(serving: Serving, call: Call, target: Target) -> WholeAnswer:
    request = entitled(_nothing_of(call), call.visitor, call.headers)
    found = await infer(serving, attrs.evolve(request, describes=True))
    if found.value.signature is None:
        raise InternalError("the runtime does not say what its model takes")
    deployment = serving.deployments.get(found.served.deployment)
    platform = "" if deployment is None else deployment.runtime
    body = described(request.model, found.value.signature, platform)
    headers = whole_headers(found.served, target.dialect)
    return WholeAnswer(body, headers, found.took_s)


def _ready(serving: Serving, call: Call) -> WholeAnswer:
    """Answer that a model takes requests.

    Raises:
        ModelNotFoundError: nobody serves it.
        NotReadyError: it does not take any now.
    """
    name = entitled(_nothing_of(call), call.visitor, call.headers).model
    deployment = serving.table.resolve(name).deployment
    readiness = serving.readiness()
    phase = readiness.phases.get(deployment)
    if phase is None:
        raise ModelNotFoundError(f"the model {name!r} does not exist", param="model")
    if deployment in readiness.not_ready:
        told = "served by no node now" if phase == ELSEWHERE else phase
        raise NotReadyError(f"the model {name!r} is {told}")
    return WholeAnswer(ready(name))


def _nothing_of(call: Call) -> InferRequest:
    return InferRequest(request_id=call.request_id, model=path_model(call))
