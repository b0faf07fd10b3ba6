"""What a model that reads texts is asked for, and what its numbers mean.

vLLM calls all of it pooling: it makes one row of numbers of a text.  For a vector the
row is the answer.  A classifier's are logits, one for each label, and a cross-encoder's
is one logit for a query and a text that are read together; they become probabilities
here and not in vLLM, where some models' own files say to leave them as they are.

Pure.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

from atomr_infer.errors import EngineError, EngineStartError
from atomr_infer.model.capabilities import Feature

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from atomr_infer.model.embeddings import EmbedRequest, Vector

    Params = Callable[..., object]
    Pair = Callable[[str, str], tuple[list[int], int | None]]

_MULTI_LABEL = "multi_label_classification"


class Pooling(Protocol):
    """One way to read texts.

    Attributes:
        feature: what is done with them.
        labels: names of a row's numbers; empty: they have none.
    """

    feature: Feature
    labels: tuple[str, ...]

    def asked(self, request: EmbedRequest) -> list[tuple[object, object]]:
        """Return vLLM's prompt and ``PoolingParams`` for each input; may take long."""
        ...

    def told(self, row: Sequence[float]) -> Vector:
        """Return what a row of the model's means.

        Raises:
            EngineError: it is not as the model's own files say.
        """
        ...


class Embedding:
    """The row is the text's vector.

    Args:
        params: makes vLLM's ``PoolingParams``.
    """

    feature = Feature.EMBEDDINGS
    labels: tuple[str, ...] = ()

    def __init__(self, params: Params) -> None:
        self._params = params

    def asked(self, request: EmbedRequest) -> list[tuple[object, object]]:
        """Return the texts, and how long their vectors shall be."""
        params = self._params(task="embed", dimensions=request.dimensions)
        return [(_prompt(one), params) for one in request.inputs]

    def told(self, row: Sequence[float]) -> Vector:
        """Return it as it is."""
        return tuple(row)


class Classifying:
    """The row is a logit for each label.

    Args:
        params: makes vLLM's ``PoolingParams``.
        config: the model's, of Hugging Face's.
    """

    feature = Feature.CLASSIFY

    def __init__(self, params: Params, config: Any) -> None:  # noqa: ANN401  HF's
        self._params = params
        names = {int(at): str(name) for at, name in config.id2label.items()}
        count: int = config.num_labels
        self.labels = tuple(names.get(at, f"LABEL_{at}") for at in range(count))
        # One label is had or not, and so is each of several that exclude nothing.
        self._apart = count == 1 or config.problem_type == _MULTI_LABEL

    def asked(self, request: EmbedRequest) -> list[tuple[object, object]]:
        """Return the texts."""
        params = self._params(task="classify", use_activation=False)
        return [(_prompt(one), params) for one in request.inputs]

    def told(self, row: Sequence[float]) -> Vector:
        """Return the probability of each label.

        Raises:
            EngineError: there are other numbers than labels.
        """
        if len(row) != len(self.labels):
            raise EngineError(
                f"the model says {len(row)} numbers of a text, and its config.json "
                f"names {len(self.labels)} labels"
            )
        return tuple(map(_sigmoid, row)) if self._apart else _softmax(row)


class Ranking:
    """The row is one logit: how well a text answers a query.

    Args:
        params: makes vLLM's ``PoolingParams``.
        config: the model's, of Hugging Face's.
        pair: returns the tokens of a query and a text, and where the text's begin, if
            the model is told.

    Raises:
        EngineStartError: the model says more than one number.
    """

    feature = Feature.RERANK
    labels: tuple[str, ...] = ()

    def __init__(
        self,
        params: Params,
        config: Any,  # noqa: ANN401  HF's
        pair: Pair,
    ) -> None:
        if config.num_labels != 1:
            raise EngineStartError(
                f"the model says {config.num_labels} numbers of a text, and one that "
                'ranks says one; write task = "classify"'
            )
        self._params = params
        self._pair = pair

    def asked(self, request: EmbedRequest) -> list[tuple[object, object]]:
        """Return each text behind the query."""
        assert request.query is not None, "it is asked to rank"
        return [self._asked(request.query, str(text)) for text in request.inputs]

    def _asked(self, query: str, text: str) -> tuple[object, object]:
        tokens, begins = self._pair(query, text)
        more = {} if begins is None else {"compressed_token_type_ids": begins}
        params = self._params(
            task="classify", use_activation=False, extra_kwargs=more or None
        )
        return {"prompt_token_ids": tokens}, params

    def told(self, row: Sequence[float]) -> Vector:
        """Return one number from 0 to 1.

        Raises:
            EngineError: there are more.
        """
        if len(row) != 1:
            raise EngineError(f"the model says {len(row)} numbers of a pair, not one")
        return (_sigmoid(row[0]),)


def _prompt(one: str | tuple[int, ...]) -> object:
    return {"prompt": one} if isinstance(one, str) else {"prompt_token_ids": list(one)}


def _sigmoid(logit: float) -> float:
    # The power of what is negative, which cannot be too large.
    power = math.exp(-abs(logit))
    return 1 / (1 + power) if logit >= 0 else power / (1 + power)


def _softmax(row: Sequence[float]) -> Vector:
    most = max(row)
    powers = [math.exp(logit - most) for logit in row]
    total = sum(powers)
    return tuple(power / total for power in powers)
