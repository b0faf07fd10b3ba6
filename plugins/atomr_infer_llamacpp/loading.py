"""Loading a GGUF into llama.cpp.

Blocks for as long as it takes; belongs in a worker thread.
"""

from __future__ import annotations

import os
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import llama_cpp

from atomr_infer.errors import ConfigError
from atomr_infer.runtimes.contract import Progress
from atomr_infer.runtimes.decoding.chat import ChatTemplate
from atomr_infer.runtimes.decoding.engine import Bounds
from atomr_infer.runtimes.decoding.sampling import Settings
from atomr_infer.runtimes.decoding.words import Words
from atomr_infer.runtimes.files import expanded
from atomr_infer.runtimes.gguf_files import SUFFIX, first_part
from atomr_infer.runtimes.hub.fetching import fetch_model, hub_of
from atomr_infer.runtimes.hub.names import HubModel
from atomr_infer.runtimes.memory import check_fits, free_bytes
from atomr_infer.runtimes.packaged import PackagedFile, locate_packaged
from atomr_infer.runtimes.text_runner import TextRunner
from atomr_infer.runtimes.weights import weights_bytes
from atomr_infer_llamacpp.engine import LlamaEngine
from atomr_infer_llamacpp.faults import step_error
from atomr_infer_llamacpp.fit import ALL_LAYERS, check_layers_fit
from atomr_infer_llamacpp.logs import log_warnings
from atomr_infer_llamacpp.model import LlamaContext, LlamaModel
from atomr_infer_llamacpp.options import DEFAULT_TEXT_TOKENS
from atomr_infer_llamacpp.runner import LlamaRunner
from atomr_infer_llamacpp.texts import LlamaTexts, makes_vectors
from atomr_infer_llamacpp.tokens import LlamaTokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from atomr_infer.model.secret import Secret
    from atomr_infer_llamacpp.options import Options, Source

_CACHE_SHARE = 0.25
"""Of the free memory, for the cache of key-value pairs."""

_UNKNOWN_CONTEXT_TOKENS = 4096
"""Bounds prompt and answer of a model that does not say how long its context is."""


@contextmanager
def loaded(
    options: Options,
    report: Callable[[Progress], None],
    environ: Mapping[str, str],
    token: Secret | None = None,
) -> Iterator[LlamaRunner | TextRunner]:
    """Load a model; the block's end frees it.

    Args:
        options: the model, and how it is run.
        report: told how far it has come.
        environ: where caches and the hub are named.
        token: opens models of a hub that are not public.

    Raises:
        ConfigError: there is no such file, a part of it is missing, or layers are to
            be on a GPU that the build does not know.
        EngineStartError: the model cannot be loaded, or does not fit into memory, the
            GPUs' where layers are kept there.
    """
    log_warnings()
    path = _found(options.source, report, environ, token)
    layers = _gpu_layers(options)
    size = weights_bytes(path)
    if layers == 0:
        check_fits(str(path), size, free_bytes())
    else:
        check_layers_fit(path, layers, environ)

    def note(share: float) -> None:
        report(Progress("loading the model", int(share * size), size))

    with closing(LlamaModel(path, gpu_layers=layers, report=note)) as model:
        runs = _texts if makes_vectors(model, options.pooling) else _generation
        with runs(options, model) as runner:
            yield runner


@contextmanager
def _texts(options: Options, model: LlamaModel) -> Iterator[TextRunner]:
    own = model.context_tokens or _UNKNOWN_CONTEXT_TOKENS
    context_tokens = min(own, options.context_tokens or _most_of_a_text(options))
    batch_tokens = max(options.batch_tokens or 0, context_tokens)
    texts = LlamaTexts(
        model,
        pooling=options.pooling,
        batch_tokens=batch_tokens,
        threads=_threads(options),
    )
    with closing(texts):
        yield TextRunner(
            texts,
            LlamaTokenizer(model),
            told=step_error,
            context_tokens=context_tokens,
            batch_tokens=batch_tokens,
            bound=_why(context_tokens, own),
        )


def _most_of_a_text(options: Options) -> int:
    return max(DEFAULT_TEXT_TOKENS, options.batch_tokens or 0)


def _why(context_tokens: int, own: int) -> str:
    """Say what lets a text be longer, where the model would read more."""
    if context_tokens == own:
        return ""
    return f" as it is served, and {own} with the option context_tokens"


@contextmanager
def _generation(options: Options, model: LlamaModel) -> Iterator[LlamaRunner]:
    bounds, context_tokens = _bounds(options, model)
    context = LlamaContext(
        model,
        cache_tokens=bounds.cache_tokens,
        batch_tokens=max(bounds.max_seqs, bounds.prefill_tokens),
        max_seqs=bounds.max_seqs,
        threads=_threads(options),
    )
    with closing(context):
        keeps = options.prefix_caching and model.can_be_cut
        engine = LlamaEngine(context, bounds, keeps=keeps)
        yield LlamaRunner(model, engine, _words(model), context_tokens)


def _threads(options: Options) -> int:
    return options.threads or len(os.sched_getaffinity(0))


def _found(
    source: Source,
    report: Callable[[Progress], None],
    environ: Mapping[str, str],
    token: Secret | None,
) -> Path:
    match source:
        case PackagedFile():
            return locate_packaged(source)
        case HubModel():
            return fetch_model(hub_of(environ, token), source, (SUFFIX,), report)
        case Path():
            return first_part(expanded(source))


def _gpu_layers(options: Options) -> int:
    has_gpu = bool(llama_cpp.llama_supports_gpu_offload())
    if options.gpu_layers and not has_gpu:
        raise ConfigError(
            f"gpu_layers is {options.gpu_layers}, and this build of llama-cpp-python "
            "knows no GPU; build it with one, such as "
            'CMAKE_ARGS="-DGGML_CUDA=on" pip install --force-reinstall '
            "llama-cpp-python, or leave gpu_layers out"
        )
    if options.gpu_layers is not None:
        return options.gpu_layers
    return ALL_LAYERS if has_gpu else 0


def _bounds(options: Options, model: LlamaModel) -> tuple[Bounds, int]:
    own = model.context_tokens or _UNKNOWN_CONTEXT_TOKENS
    context = min(own, options.context_tokens or own)
    cache = options.cache_tokens
    if cache is None:
        cache = options.max_seqs * context
        free = free_bytes()
        if free is not None:
            most = int(free * _CACHE_SHARE) // model.cache_bytes_per_token
            cache = min(cache, max(most, 1))
    bounds = Bounds(
        max_seqs=options.max_seqs,
        prefill_tokens=options.prefill_tokens,
        cache_tokens=cache,
    )
    return bounds, min(context, cache)


def _words(model: LlamaModel) -> Words:
    tokenizer = LlamaTokenizer(model)
    text = model.chat_template
    special = tokenizer.special_tokens()
    template = None if text is None else ChatTemplate(text, special)
    return Words(tokenizer, template, tokenizer.end_tokens(), Settings())
