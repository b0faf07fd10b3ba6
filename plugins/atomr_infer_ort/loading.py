"""Loading a model into ONNX Runtime.

Blocks for as long as it takes; belongs in a worker thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.errors import EngineStartError, InferenceError
from atomr_infer.runtimes.contract import Progress
from atomr_infer.runtimes.decoding.engine import Bounds
from atomr_infer.runtimes.hub import fetch_model, hub_of
from atomr_infer.runtimes.hub_files import PREFIX, parse_hub_model
from atomr_infer.runtimes.memory import check_fits, free_bytes
from atomr_infer_ort.causal import probe
from atomr_infer_ort.embedding import (
    EmbeddingModel,
    EmbedRunner,
    pooling_of,
)
from atomr_infer_ort.engine import OrtEngine
from atomr_infer_ort.faults import load_error
from atomr_infer_ort.layout import Layout, read_layout
from atomr_infer_ort.model import CausalModel
from atomr_infer_ort.ranking import RankingModel
from atomr_infer_ort.runner import OrtRunner
from atomr_infer_ort.session import open_session
from atomr_infer_ort.words import context_tokens, tokenizer_of, words_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from atomr_infer.model.secret import Secret
    from atomr_infer_ort.options import Options
    from atomr_infer_ort.session import Session
    from atomr_infer_ort.tokens import ModelTokenizer

_WEIGHTS = (".onnx", ".onnx_data")
_NO_ENVIRON: Mapping[str, str] = {}

_CACHE_SHARE = 0.25
"""Of the free memory: a run holds the cache twice, before and behind it, and half
of the memory is left to others."""


def load(
    options: Options,
    report: Callable[[Progress], None],
    environ: Mapping[str, str] = _NO_ENVIRON,
    token: Secret | None = None,
) -> OrtRunner | EmbedRunner:
    """Load a model; what it is, its inputs say.

    Raises:
        ConfigError: a file is missing.
        EngineStartError: the model cannot be loaded or run, does not fit into
            memory, is of no known layout, or a provider cannot be used.
    """
    source = options.source
    if source.startswith(PREFIX):
        hub, model = hub_of(environ, token), parse_hub_model(source)
        source = str(fetch_model(hub, model, _WEIGHTS, report))
    report(Progress("reading the model's files"))
    layout = read_layout(source, options.file)
    if options.providers[0] == "cpu":
        check_fits(str(layout.model), layout.weights_bytes, free_bytes())
    tokenizer = tokenizer_of(layout)
    size = layout.weights_bytes
    report(Progress("loading the model", 0, size))
    session = open_session(layout.model, options)
    report(Progress("loading the model", size, size))
    names = {one.name for one in session.get_inputs()}
    if any(name.startswith("past") for name in names):
        return _causal(options, layout, tokenizer, session, report)
    outputs = [one.name for one in session.get_outputs()]
    ranks = [
        o for o in session.get_outputs() if o.name == "logits" and len(o.shape) == 2
    ]
    if ranks:
        return EmbedRunner(
            RankingModel(session),
            tokenizer,
            context_tokens=context_tokens(layout, options.context_tokens),
            batch_tokens=options.batch_tokens,
        )
    if "logits" in outputs:
        raise EngineStartError(
            f"{str(layout.model)!r} has no key-value cache; export it with: "
            "optimum-cli export onnx --task text-generation-with-past"
        )
    return _embedding(options, layout, tokenizer, session)


def _causal(
    options: Options,
    layout: Layout,
    tokenizer: ModelTokenizer,
    session: Session,
    report: Callable[[Progress], None],
) -> OrtRunner:
    on_gpu = options.providers[0] in {"cuda", "tensorrt"}
    model = CausalModel(session, layout.config, device="cuda" if on_gpu else "cpu")
    report(Progress("trying the model"))
    try:
        abilities = probe(model, tokenizer.size)
    except InferenceError:
        raise
    except Exception as error:
        # The library's errors have no common class but Exception.
        raise load_error(str(layout.model), error) from error
    context = context_tokens(layout, options.context_tokens)
    cache = options.cache_tokens or _cache_tokens(model, options.max_seqs * context)
    context = min(context, cache)
    words = words_of(layout, tokenizer)
    bounds = Bounds(
        max_seqs=options.max_seqs,
        prefill_tokens=options.prefill_tokens,
        cache_tokens=cache,
    )
    engine = OrtEngine(model, abilities, bounds)
    return OrtRunner(engine, words, context_tokens=context, max_seqs=options.max_seqs)


def _cache_tokens(model: CausalModel, most: int) -> int:
    """Return the tokens that the caches may hold, ``most`` at most."""
    free = free_bytes()
    if free is None:
        return most
    return max(1, min(most, int(free * _CACHE_SHARE) // model.bytes_per_token))


def _embedding(
    options: Options,
    layout: Layout,
    tokenizer: ModelTokenizer,
    session: Session,
) -> EmbedRunner:
    pooling, normalize = pooling_of(options, layout)
    model = EmbeddingModel(session, pooling=pooling, normalize=normalize)
    context = context_tokens(layout, options.context_tokens)
    if layout.max_seq_length is not None:
        context = min(context, layout.max_seq_length)
    return EmbedRunner(
        model, tokenizer, context_tokens=context, batch_tokens=options.batch_tokens
    )
