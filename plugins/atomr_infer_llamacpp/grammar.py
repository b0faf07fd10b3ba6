"""Answers that are JSON, by a grammar of llama.cpp's.

A token is drawn as ever.  Where the grammar does not allow it, it is drawn again of
those that are allowed: looking at one token is cheap, and looking at all of them is
not.
"""

from __future__ import annotations

import ctypes
import weakref
from typing import TYPE_CHECKING, Any

import llama_cpp
import numpy as np
from llama_cpp import llama_grammar

from atomr_infer.errors import InvalidRequestError
from atomr_infer.model.asks import FormatKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr_infer.model.asks import ResponseFormat
    from atomr_infer.runtimes.decoding.sampling import Logits
    from atomr_infer_llamacpp.model import LlamaModel


class Grammar:
    """What may come next of one answer.

    Args:
        model: whose tokens.
        rules: the grammar, in llama.cpp's form.

    Raises:
        InvalidRequestError: it is no grammar.
    """

    def __init__(self, model: LlamaModel, rules: str) -> None:
        found = llama_cpp.llama_sampler_init_grammar(
            model.vocabulary, rules.encode(), b"root"
        )
        if not found:
            raise InvalidRequestError(
                "llama.cpp makes no grammar of this schema", param="response_format"
            )
        self._sampler: Any = found
        self._size = model.size
        weakref.finalize(self, llama_cpp.llama_sampler_free, found)

    def allows(self, token: int) -> bool:
        """Whether a token may come next."""
        one = (llama_cpp.llama_token_data * 1)()
        one[0].id = token
        self._apply(one, 1)
        return bool(one[0].logit > -np.inf)

    def masked(self, logits: Logits) -> Logits:
        """Return logits that leave tokens out which may not come next."""
        candidates = (llama_cpp.llama_token_data * self._size)()
        view = np.ctypeslib.as_array(candidates)
        view["id"] = np.arange(self._size)
        view["logit"] = logits
        self._apply(candidates, self._size)
        # The library may have put them in another order.
        masked = np.empty_like(logits)
        masked[view["id"]] = view["logit"]
        return masked

    def _apply(self, candidates: Any, count: int) -> None:  # noqa: ANN401 - of ctypes
        array = llama_cpp.llama_token_data_array(
            data=candidates, size=count, selected=-1, sorted=False
        )
        llama_cpp.llama_sampler_apply(self._sampler, ctypes.byref(array))

    def accept(self, token: int) -> None:
        """Go on behind a token, which must be allowed."""
        llama_cpp.llama_sampler_accept(self._sampler, token)


def grammars_for(
    model: LlamaModel, form: ResponseFormat | None
) -> Callable[[], Grammar] | None:
    """Return what makes a grammar for each answer; None: anything may come.

    Raises:
        InvalidRequestError: the schema cannot be made a grammar.
    """
    if form is None or form.kind is FormatKind.TEXT:
        return None
    schema = b'{"type": "object"}' if form.schema is None else bytes(form.schema)
    try:
        rules = llama_grammar.json_schema_to_gbnf(schema.decode())
    # The library raises whatever its walk through the schema meets.
    except Exception as error:
        raise InvalidRequestError(
            f"llama.cpp makes no grammar of this schema: {error}",
            param="response_format",
        ) from error
    return lambda: Grammar(model, rules)
