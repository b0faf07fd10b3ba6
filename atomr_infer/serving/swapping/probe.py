"""What comes is asked for the least that it can make, before any client asks it.

A generation, vectors, a rank, or a label, by what its runner says that it can do.
Where it runs on another node, that is not known, and a provider's runner can do what
any of the provider's models can: so it is asked for one after the other, for as long as
what it says is that it was asked for the wrong thing.  A refusal of any other sort is
no reason to go on: there are servers that make vectors by every model, also by one
whose chat template is broken.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

import trio

from atomr_infer.errors import (
    ContentFilterError,
    ContextLengthError,
    DeadlineError,
    EndpointUnsupportedError,
    InferenceError,
    InvalidRequestError,
    ModelNotFoundError,
)
from atomr_infer.model.batch import ExecuteBatch, Message, Role, Sampling
from atomr_infer.model.capabilities import Feature
from atomr_infer.model.embeddings import EmbedRequest
from atomr_infer.serving.requests.request import run_request
from atomr_infer.serving.requests.sinks import CollectingSink
from atomr_infer.serving.requests.whole_calls import embed

if TYPE_CHECKING:
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.model.swap_plan import SwapPlan
    from atomr_infer.serving.shared import Serving

log = logging.getLogger(__name__)

_TOKENS = 16
_KINDS = (
    Feature.CHAT,
    Feature.COMPLETIONS,
    Feature.EMBEDDINGS,
    Feature.RERANK,
    Feature.CLASSIFY,
)


# What is refused by servers and runtimes in words alone, as the wrong thing to ask of
# a model.  A parameter that is "not supported" is none of it, nor a template's error.
_KIND = r"(?:chat|completions?|generat\w+|text|embed\w*|vectors|rerank\w*|classif\w*)"
_SAYS_OTHER_KIND = re.compile(
    rf"""
      \bnot\ an?\ {_KIND}\ model\b            # OpenAI
    | \bdoes\ not\ support\ (the\ )?{_KIND}\b  # vLLM, Ollama
    | {_KIND}\ operation\ does\ not\ work\b     # Azure, of its chatCompletion
    | ^invalid\ model\b                        # Mistral
    | \bhas\ no\ chat\ template\b              # our own runtimes
    """,
    re.IGNORECASE | re.VERBOSE,
)
_MAY_BE_AT_FAULT = frozenset({None, "", "model", "messages", "input"})


def concrete_name(deployment: Deployment) -> str | None:
    """Return a model that a deployment can be asked for; None: it has patterns alone.

    >>> from atomr_infer.model.deployment import Deployment
    >>> concrete_name(Deployment(name="a", runtime="mock", serves=("gpt-*", "b")))
    'b'
    """
    names = (*deployment.serves, deployment.model or "")
    return next((name for name in names if name and "*" not in name), None)


async def probe(
    serving: Serving, copy: Deployment, plan: SwapPlan, *, model: str
) -> None:
    """Ask what comes; return when it has answered, or has nothing to be asked for.

    Args:
        serving: the tree that serves.
        copy: what comes, as it runs beside the other one.
        plan: what it is asked, and how long its answer may take.
        model: under which only it answers.

    Raises:
        InferenceError: it does not answer, or refuses for another reason than that it
            makes something else; of several refusals, the first.

    Cancellation: ends the request.
    """
    asked = _Probe(serving, plan, model=model, request_id=f"probe of {copy.name}")
    can = _features(serving, copy.name)
    refused: dict[Feature, InferenceError] = {}
    with trio.move_on_after(plan.probe_timeout_s):
        for kind in _KINDS:
            if can is not None and kind not in can:
                continue
            try:
                await asked.ask(kind)
            except EndpointUnsupportedError:
                continue
            except (InvalidRequestError, ModelNotFoundError) as error:
                if not says_other_kind(error):
                    raise
                refused[kind] = error
                continue
            for other, refusal in refused.items():
                log.warning(
                    "%s passes its probe by %s; asked for %s it says: %s",
                    copy.name,
                    kind.value,
                    other.value,
                    refusal.message,
                )
            return
        for refusal in refused.values():
            raise refusal
        log.warning("%s is not probed: it makes neither text nor vectors", copy.name)
        return
    raise DeadlineError(f"no answer to the probe in {plan.probe_timeout_s:g} s")


def says_other_kind(error: InvalidRequestError | ModelNotFoundError) -> bool:
    """Whether an error is that a model was asked for what it does not make.

    >>> says_other_kind(InvalidRequestError('"bge-m3" does not support chat'))
    True
    >>> says_other_kind(InvalidRequestError("max_tokens is not supported"))
    False
    """
    if isinstance(error, ContextLengthError | ContentFilterError):
        return False
    if isinstance(error, ModelNotFoundError):
        return True  # as OpenAI says of a model that makes vectors, asked to chat
    if error.param not in _MAY_BE_AT_FAULT:
        return False
    return _SAYS_OTHER_KIND.search(error.message) is not None


def _features(serving: Serving, name: str) -> frozenset[Feature] | None:
    for replica in serving.replicas(name):
        engine = replica.permits.engine
        if engine is not None:
            return engine.runner.capabilities.features
    return None


class _Probe:
    def __init__(
        self, serving: Serving, plan: SwapPlan, *, model: str, request_id: str
    ) -> None:
        self._serving = serving
        self._plan = plan
        self._model = model
        self._id = request_id

    async def ask(self, kind: Feature) -> None:
        if kind in (Feature.CHAT, Feature.COMPLETIONS):
            await self._generate(is_chat=kind is Feature.CHAT)
        else:
            await self._embed(kind)

    async def _generate(self, *, is_chat: bool) -> None:
        batch = ExecuteBatch(
            request_id=self._id,
            model=self._model,
            messages=(Message(Role.USER, self._plan.probe),),
            prompt=None if is_chat else self._plan.probe,
            sampling=Sampling(max_tokens=_TOKENS),
            timeout_s=self._plan.probe_timeout_s,
        )
        await run_request(self._serving, batch, CollectingSink())

    async def _embed(self, kind: Feature) -> None:
        request = EmbedRequest(
            request_id=self._id,
            model=self._model,
            inputs=(self._plan.probe,),
            query=self._plan.probe if kind is Feature.RERANK else None,
            classifies=kind is Feature.CLASSIFY,
            timeout_s=self._plan.probe_timeout_s,
        )
        await embed(self._serving, request)
