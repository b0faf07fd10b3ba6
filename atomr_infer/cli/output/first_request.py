"""The request that ``serve`` shows when it is ready: one that what is served answers.

Pure.
"""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import attrs

from atomr_infer.model.capabilities import Feature

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from atomr_infer.model.deployment import Deployment

_QUESTION = "Why is the sky blue?"
_ANSWERS = ["Air scatters blue light most.", "The sea is salty."]

# The first that a model can do is shown.
_BODIES: tuple[tuple[Feature, str, Mapping[str, Any]], ...] = (
    (Feature.CHAT, "/v1/chat/completions", {}),
    (Feature.COMPLETIONS, "/v1/completions", {"prompt": _QUESTION}),
    (Feature.EMBEDDINGS, "/v1/embeddings", {"input": _QUESTION}),
    (Feature.RERANK, "/v1/rerank", {"query": _QUESTION, "documents": _ANSWERS}),
    (Feature.CLASSIFY, "/v1/classify", {"input": _QUESTION}),
)


@attrs.frozen
class FirstRequest:
    """A request for a model, to be copied.

    Attributes:
        path: with the leading slash.
        body: its JSON; None: it has none.
        hint: what to say when the model's name is only a pattern.
    """

    path: str
    body: dict[str, Any] | None
    hint: str = ""

    def lines(self, url: str, *, has_keys: bool) -> list[str]:
        """Return it as a curl command.

        Args:
            url: where the gateway is.
            has_keys: whether it must show one.
        """
        options = []
        if self.body is not None:
            options.append("-H 'content-type: application/json'")
        if has_keys:
            options.append("-H 'authorization: Bearer KEY'")
        if self.body is not None:
            options.append(f"-d {shlex.quote(json.dumps(self.body))}")
        flag = " -N" if self.body is not None and self.body.get("stream") else ""
        first, *others = [f"  curl{flag} {url}{self.path}", *options]
        return " \\\n    ".join([first, *others]).split("\n")


def first_request(
    deployments: Sequence[Deployment],
    features: Mapping[str, Collection[Feature]],
    local: Collection[str],
) -> FirstRequest:
    """Choose a model to ask, and what.

    Args:
        deployments: what is served.
        features: what those can do that run here, by deployment.
        local: the names of those that run on this machine.
    """
    model, whose, hint = _example_model(deployments)
    able = features.get(whose, (Feature.CHAT,))
    found = next((each for each in _BODIES if each[0] in able), None)
    if found is None:
        if Feature.INFER in able:
            return FirstRequest(f"/v2/models/{quote(model)}", None, hint)
        found = _BODIES[0]
    feature, path, words = found
    body: dict[str, Any] = {"model": model, **words}
    if feature is Feature.CHAT:
        body["stream"] = True
        if whose in local:
            # The likeliest words: a small model is at its best with them.  Models that
            # reason refuse it, and those are elsewhere.
            body["temperature"] = 0
        body["messages"] = [{"role": "user", "content": _QUESTION}]
    return FirstRequest(path, body, hint)


def _example_model(deployments: Sequence[Deployment]) -> tuple[str, str, str]:
    """Return a model to ask for, whose it is, and what to say when it is none yet."""
    names = [(name, each.name) for each in deployments for name in each.serves]
    for name, whose in names:
        if "*" not in name:
            return name, whose, ""
    pattern, whose = names[0]
    return "MODEL", whose, f", with a model's name that fits {pattern} for MODEL"
