"""llama.cpp's model and context, through its C interface.

Owns both: :meth:`LlamaModel.close` frees them.  Nothing here may be called by two
threads at once; a run releases the interpreter while it computes.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, cast

import llama_cpp
import numpy as np

from atomr_infer.errors import EngineStartError
from atomr_infer_llamacpp.faults import ABORTED, decode_error
from atomr_infer_llamacpp.logs import forget_said, hushed_when, said_last

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from atomr_infer.runtimes.decoding.sampling import Logits
    from atomr_infer_llamacpp.pieces import Piece

_ROOM_BYTES = 256
"""For a short text that a file says of itself."""

_HALF_BYTES = 2
"""A number of the key-value cache has 16 bits."""


class LlamaModel:
    """A loaded model, without a context.

    Args:
        path: the file.
        gpu_layers: layers on a GPU.
        report: told how much has been loaded, from 0 to 1.

    Raises:
        EngineStartError: it cannot be loaded.
    """

    def __init__(
        self, path: Path, *, gpu_layers: int, report: Callable[[float], None]
    ) -> None:
        def note(share: float, _: object) -> bool:
            report(share)
            return True  # go on

        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        # The library calls it by its address while it loads.
        callback = llama_cpp.llama_progress_callback(note)
        params.progress_callback = callback
        forget_said()
        model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        if not model:
            raise EngineStartError(
                f"llama.cpp cannot load {str(path)!r}; it said: {said_last()}"
            )
        self.handle: Any = model
        self.vocabulary: Any = llama_cpp.llama_model_get_vocab(model)
        self.size = llama_cpp.llama_vocab_n_tokens(self.vocabulary)
        self.context_tokens = llama_cpp.llama_model_n_ctx_train(model)

    @property
    def cache_bytes_per_token(self) -> int:
        """What the key-value cache takes for a token, keys and values together."""
        handle = self.handle
        heads = max(1, llama_cpp.llama_model_n_head(handle))
        width = llama_cpp.llama_model_n_embd(handle) // heads
        kept = width * max(1, llama_cpp.llama_model_n_head_kv(handle))
        return int(2 * _HALF_BYTES * kept * llama_cpp.llama_model_n_layer(handle))

    @property
    def vector_size(self) -> int:
        """How many numbers a text's vector has."""
        return int(llama_cpp.llama_model_n_embd_out(self.handle))

    def said(self, name: str, otherwise: int) -> int:
        """Return a number that the file says of its kind of model."""
        kind = self._text("general.architecture")
        found = self._text(f"{kind}.{name}")
        return int(found) if found.lstrip("-").isdigit() else otherwise

    def _text(self, key: str) -> str:
        buffer = ctypes.create_string_buffer(_ROOM_BYTES)
        count = llama_cpp.llama_model_meta_val_str(
            self.handle, key.encode(), buffer, _ROOM_BYTES
        )
        return buffer.value.decode(errors="replace") if count >= 0 else ""

    @property
    def can_be_cut(self) -> bool:
        """Whether a sequence's beginning is in the cache, and not only its state."""
        is_state = llama_cpp.llama_model_is_recurrent(self.handle)
        return not (is_state or llama_cpp.llama_model_is_hybrid(self.handle))

    @property
    def chat_template(self) -> str | None:
        """The template that the file holds; None: it holds none."""
        found = llama_cpp.llama_model_chat_template(self.handle, None)
        return None if found is None else found.decode(errors="replace")

    def close(self) -> None:
        """Free it; its contexts are to be freed before."""
        llama_cpp.llama_model_free(self.handle)


class LlamaContext:
    """A model's context: the cache of all sequences, and runs.

    Args:
        model: the model.
        cache_tokens: tokens that the cache holds.
        batch_tokens: most tokens of a run.
        max_seqs: most sequences.
        threads: processor threads.

    Raises:
        EngineStartError: there is no memory for it.

    Attributes:
        read_tokens: tokens that were computed, in all runs.
    """

    def __init__(
        self,
        model: LlamaModel,
        *,
        cache_tokens: int,
        batch_tokens: int,
        max_seqs: int,
        threads: int,
    ) -> None:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = cache_tokens
        params.n_batch = params.n_ubatch = batch_tokens
        params.n_seq_max = max_seqs
        params.n_threads = params.n_threads_batch = threads
        # One cache for all: a sequence may be long where the others are short.
        params.kv_unified = True
        forget_said()
        handle = llama_cpp.llama_init_from_model(model.handle, params)
        if not handle:
            raise EngineStartError(
                f"llama.cpp has no memory for a cache of {cache_tokens} tokens; lower "
                f"cache_tokens or max_seqs; it said: {said_last()}"
            )
        self._handle: Any = handle
        self._memory: Any = llama_cpp.llama_get_memory(handle)
        self._size = model.size
        self._batch = llama_cpp.llama_batch_init(batch_tokens, 0, 1)
        self._no_abort = llama_cpp.ggml_abort_callback()
        self.read_tokens = 0

    def close(self) -> None:
        """Free it."""
        llama_cpp.llama_batch_free(self._batch)
        llama_cpp.llama_free(self._handle)

    def run(
        self, pieces: Sequence[Piece], stopped: Callable[[], bool] | None = None
    ) -> list[Logits] | None:
        """Read tokens, and return what each piece that wants it is followed by.

        What it returns is the library's own memory, until the next run.

        Args:
            pieces: what is read, each into its sequence.
            stopped: asked while it computes whether to stop; asking costs
                milliseconds in all.

        Returns:
            None: it was stopped; its sequences are of no use any more.

        Raises:
            InferenceError: it failed.
        """
        wanted = self._fill(pieces)
        self.read_tokens += self._batch.n_tokens
        status = self._decode(stopped)
        if status == ABORTED and stopped is not None:
            return None
        if status:
            raise decode_error(status, said_last())
        return [self._logits(at) for at in wanted]

    def _decode(self, stopped: Callable[[], bool] | None) -> int:
        forget_said()
        if stopped is None:
            return int(llama_cpp.llama_decode(self._handle, self._batch))
        callback = llama_cpp.ggml_abort_callback(lambda _: stopped())
        llama_cpp.llama_set_abort_callback(self._handle, callback, None)
        try:
            with hushed_when(stopped):
                return int(llama_cpp.llama_decode(self._handle, self._batch))
        finally:
            # The library keeps the address of what is about to go.
            llama_cpp.llama_set_abort_callback(self._handle, self._no_abort, None)

    def _fill(self, pieces: Sequence[Piece]) -> list[int]:
        batch, at, wanted = self._batch, 0, []
        for piece in pieces:
            for offset, token in enumerate(piece.tokens):
                batch.token[at] = token
                batch.pos[at] = piece.start + offset
                batch.n_seq_id[at] = 1
                batch.seq_id[at][0] = piece.seq
                batch.logits[at] = False
                at += 1
            if piece.wants_logits:
                batch.logits[at - 1] = True
                wanted.append(at - 1)
        batch.n_tokens = at
        return wanted

    def _logits(self, at: int) -> Logits:
        found = llama_cpp.llama_get_logits_ith(self._handle, at)
        array = np.ctypeslib.as_array(
            ctypes.cast(found, ctypes.POINTER(ctypes.c_float)), (self._size,)
        )
        return cast("Logits", array)

    def copy(self, seq: int, other: int, length: int) -> None:
        """Have ``other`` begin with ``length`` of ``seq``; they share its memory."""
        llama_cpp.llama_memory_seq_cp(self._memory, seq, other, 0, length)

    def cut(self, seq: int, length: int) -> None:
        """Free what a sequence holds behind ``length`` tokens."""
        llama_cpp.llama_memory_seq_rm(self._memory, seq, length, -1)

    def holds(self, seq: int) -> int:
        """Return how many tokens of a sequence are in the cache."""
        return int(llama_cpp.llama_memory_seq_pos_max(self._memory, seq)) + 1
