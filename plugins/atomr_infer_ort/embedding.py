"""Embedding models: texts to vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from atomr_infer.errors import EngineStartError
from atomr_infer.model.capabilities import Feature
from atomr_infer.runtimes.text_runner import TextRunner
from atomr_infer_ort.faults import step_error
from atomr_infer_ort.options import Normalize, Pooling
from atomr_infer_ort.ranking import KNOWN, padded, positions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atomr_infer.runtimes.text_runner import TextModel
    from atomr_infer_ort.layout import Layout
    from atomr_infer_ort.options import Options
    from atomr_infer_ort.session import Session
    from atomr_infer_ort.tokens import ModelTokenizer

Array = np.ndarray[Any, np.dtype[Any]]

_HIDDEN = ("last_hidden_state", "token_embeddings")
_POOLED = ("sentence_embedding",)


def pooling_of(options: Options, layout: Layout) -> tuple[Pooling, bool]:
    """Return how vectors are made, and whether they are normalized."""
    pooling = options.pooling
    if pooling is Pooling.AUTO:
        pooling = Pooling.MEAN
        if layout.pooling.get("pooling_mode_cls_token"):
            pooling = Pooling.CLS
        elif layout.pooling.get("pooling_mode_lasttoken"):
            pooling = Pooling.LAST
    if options.normalize is Normalize.AUTO:
        return pooling, layout.normalizes
    return pooling, options.normalize is Normalize.YES


class EmbeddingModel:
    """A session with what is known of its inputs and outputs.

    Raises:
        EngineStartError: it is no model that makes vectors of texts.
    """

    feature = Feature.EMBEDDINGS
    labels: tuple[str, ...] = ()

    def __init__(self, session: Session, *, pooling: Pooling, normalize: bool) -> None:
        self._session = session
        self._inputs = {one.name for one in session.get_inputs()}
        self._pooling = pooling
        self._normalize = normalize
        outputs = [one.name for one in session.get_outputs()]
        found = [name for name in (*_POOLED, *_HIDDEN) if name in outputs]
        if not found or not {"input_ids"} <= self._inputs <= KNOWN:
            raise EngineStartError(
                "the model is neither a causal language model nor one that makes "
                f"embeddings: its inputs are {', '.join(sorted(self._inputs))}, its "
                f"outputs {', '.join(outputs)}"
            )
        self._output = found[0]

    def run(self, texts: Sequence[Sequence[int]]) -> Array:
        """Return a vector for each text, given as tokens.

        Raises:
            Exception: as ONNX Runtime raises it.
        """
        ids, mask = padded(texts)
        feeds = {
            "input_ids": ids,
            "attention_mask": mask,
            "token_type_ids": np.zeros_like(ids),
            "position_ids": positions(ids),
        }
        feeds = {name: feeds[name] for name in feeds if name in self._inputs}
        [made] = self._session.run([self._output], feeds)
        vectors = made if made.ndim == 2 else self._pool(made, mask)
        vectors = vectors.astype(np.float32, copy=False)
        if self._normalize:
            length = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = vectors / np.maximum(length, 1e-12)
        return vectors

    def _pool(self, hidden: Array, mask: Array) -> Array:
        vectors: Array
        match self._pooling:
            case Pooling.CLS:
                vectors = hidden[:, 0]
            case Pooling.LAST:
                vectors = hidden[np.arange(len(hidden)), mask.sum(axis=1) - 1]
            case _:
                weights = mask[:, :, None].astype(hidden.dtype)
                vectors = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
        return vectors


class EmbedRunner(TextRunner):
    """A :class:`~atomr_infer.runtimes.contract.Embedder` on ONNX Runtime."""

    def __init__(
        self,
        model: TextModel,
        tokenizer: ModelTokenizer,
        *,
        context_tokens: int,
        batch_tokens: int,
    ) -> None:
        super().__init__(
            model,
            tokenizer,
            told=step_error,
            context_tokens=context_tokens,
            batch_tokens=batch_tokens,
        )
