"""A GGUF that reads texts and makes a vector of each.

Encoders such as BERT, and language models that were trained for it; the file says how
its vectors are made of its tokens (``pooling_type``), and they are made as long as one.
A text is a sequence of a run; nothing of it stays in the context.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import llama_cpp
import numpy as np

from atomr_infer.errors import EngineStartError
from atomr_infer.model.capabilities import Feature
from atomr_infer_llamacpp.faults import decode_error
from atomr_infer_llamacpp.logs import forget_said, said_last
from atomr_infer_llamacpp.options import Pooling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atomr_infer_llamacpp.model import LlamaModel

Array = np.ndarray[Any, np.dtype[Any]]

MAX_TEXTS = 64
"""Of one run: each is a sequence, of which the library has a bound."""

_POOLINGS = {
    Pooling.AUTO: llama_cpp.LLAMA_POOLING_TYPE_UNSPECIFIED,
    Pooling.MEAN: llama_cpp.LLAMA_POOLING_TYPE_MEAN,
    Pooling.CLS: llama_cpp.LLAMA_POOLING_TYPE_CLS,
    Pooling.LAST: llama_cpp.LLAMA_POOLING_TYPE_LAST,
}


def makes_vectors(model: LlamaModel, pooling: Pooling) -> bool:
    """Whether a model is one for vectors: the deployment or the file says so.

    Raises:
        EngineStartError: it ranks, for which there is no runner.
    """
    if pooling is not Pooling.AUTO:
        return True
    said = model.said("pooling_type", llama_cpp.LLAMA_POOLING_TYPE_NONE)
    if said == llama_cpp.LLAMA_POOLING_TYPE_RANK:
        raise EngineStartError(
            "the model ranks documents, which llamacpp does not serve; take its ONNX "
            "export and the runtime ort"
        )
    return bool(said > llama_cpp.LLAMA_POOLING_TYPE_NONE)


class LlamaTexts:
    """A model's context for texts.

    Args:
        model: the model.
        pooling: how vectors are made.
        batch_tokens: most tokens of a run, and of a text.
        threads: processor threads.

    Raises:
        EngineStartError: there is no memory for it.
    """

    labels: tuple[str, ...] = ()

    def __init__(
        self,
        model: LlamaModel,
        *,
        pooling: Pooling,
        batch_tokens: int,
        threads: int,
    ) -> None:
        self.feature = Feature.EMBEDDINGS
        params = llama_cpp.llama_context_default_params()
        params.embeddings = True
        params.pooling_type = _POOLINGS[pooling]
        # The library ends its process where there are fewer tokens than sequences.
        batch_tokens = max(batch_tokens, MAX_TEXTS)
        # An encoder reads a text in one piece.
        params.n_ctx = params.n_batch = params.n_ubatch = batch_tokens
        params.n_seq_max = MAX_TEXTS
        params.n_threads = params.n_threads_batch = threads
        params.kv_unified = True
        forget_said()
        handle = llama_cpp.llama_init_from_model(model.handle, params)
        if not handle:
            raise EngineStartError(
                f"llama.cpp has no memory for runs of {batch_tokens} tokens; lower "
                f"context_tokens; it said: {said_last()}"
            )
        self._handle: Any = handle
        self._size = model.vector_size
        self._batch_tokens = batch_tokens
        self._batch = llama_cpp.llama_batch_init(batch_tokens, 0, 1)

    def close(self) -> None:
        """Free it."""
        llama_cpp.llama_batch_free(self._batch)
        llama_cpp.llama_free(self._handle)

    def run(self, texts: Sequence[Sequence[int]]) -> Array:
        """Return a vector for each text, given as tokens.

        Raises:
            InferenceError: it failed.
        """
        vectors = np.empty((len(texts), self._size), np.float32)
        begin = 0
        while begin < len(texts):
            end = self._fitting(texts, begin)
            self._run(texts[begin:end], vectors[begin:end])
            begin = end
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        made: Array = vectors / np.maximum(length, 1e-12)
        return made

    def _fitting(self, texts: Sequence[Sequence[int]], begin: int) -> int:
        """Return the end of the texts that share a run."""
        end, tokens = begin, 0
        for text in texts[begin : begin + MAX_TEXTS]:
            tokens += len(text)
            if tokens > self._batch_tokens:
                break
            end += 1
        return end

    def _run(self, texts: Sequence[Sequence[int]], vectors: Array) -> None:
        batch, at = self._batch, 0
        for seq, text in enumerate(texts):
            for position, token in enumerate(text):
                batch.token[at] = token
                batch.pos[at] = position
                batch.n_seq_id[at] = 1
                batch.seq_id[at][0] = seq
                batch.logits[at] = True
                at += 1
        batch.n_tokens = at
        forget_said()
        status = llama_cpp.llama_decode(self._handle, batch)
        try:
            if status:
                raise decode_error(status, said_last())
            for seq in range(len(texts)):
                found = llama_cpp.llama_get_embeddings_seq(self._handle, seq)
                vectors[seq] = np.ctypeslib.as_array(found, (self._size,))
        finally:
            self._forget()

    def _forget(self) -> None:
        memory = llama_cpp.llama_get_memory(self._handle)
        if memory:  # an encoder has none
            llama_cpp.llama_memory_clear(memory, False)  # noqa: FBT003  the C function takes it by place
