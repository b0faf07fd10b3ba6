"""Loading a model into ONNX Runtime.

Blocks for as long as it takes; belongs in a worker thread.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import ConfigError, EngineStartError, InferenceError
from atomr_infer.runtimes.contract import Progress
from atomr_infer.runtimes.decoding.engine import Bounds
from atomr_infer.runtimes.decoding.pace import Pace
from atomr_infer.runtimes.gpu_memory import check_fits_gpus, free_gpu_bytes
from atomr_infer.runtimes.hub.fetching import fetch_model, hub_of
from atomr_infer.runtimes.hub.names import PREFIX, parse_hub_model
from atomr_infer.runtimes.kept_models import cache_folder
from atomr_infer.runtimes.memory import check_fits, free_bytes
from atomr_infer_ort.causal import Abilities, Rows, probe
from atomr_infer_ort.classifying import ClassifyingModel
from atomr_infer_ort.converted import with_bits
from atomr_infer_ort.drafting import DraftingEngine
from atomr_infer_ort.embedding import (
    EmbeddingModel,
    EmbedRunner,
    pooling_of,
)
from atomr_infer_ort.engine import OrtEngine
from atomr_infer_ort.faults import load_error
from atomr_infer_ort.layout import (
    Layout,
    has_words,
    model_file,
    read_layout,
    weights_bytes,
)
from atomr_infer_ort.model import CausalModel
from atomr_infer_ort.options import Weights
from atomr_infer_ort.ranking import RankingModel
from atomr_infer_ort.renamed import renamed
from atomr_infer_ort.runner import OrtRunner
from atomr_infer_ort.schemas import Schemas
from atomr_infer_ort.session import Session, open_session
from atomr_infer_ort.tensors import OrtTensorRunner
from atomr_infer_ort.tokens import ModelTokenizer
from atomr_infer_ort.words import context_tokens, tokenizer_of, words_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from atomr_infer.model.secret import Secret
    from atomr_infer_ort.options import Options

_WEIGHTS = (".onnx", ".onnx_data", ".onnx.data")
_NO_ENVIRON: Mapping[str, str] = {}

_BITS = {Weights.INT8: 8, Weights.INT4: 4}

_CACHE_SHARE = 0.25
"""Of the free memory: a run holds the cache twice, before and behind it, and half
of the memory is left to others."""


def load(
    options: Options,
    report: Callable[[Progress], None],
    environ: Mapping[str, str] = _NO_ENVIRON,
    token: Secret | None = None,
) -> OrtRunner | EmbedRunner | OrtTensorRunner:
    """Load a model; what it is, its inputs say.

    Raises:
        ConfigError: a file is missing.
        EngineStartError: the model cannot be loaded or run, does not fit into
            memory, is of no known layout, or a provider cannot be used.
    """

    def on_disk(source: str, file: str | None) -> str:
        if not source.startswith(PREFIX):
            return source
        model = attrs.evolve(parse_hub_model(source), export=file)
        return str(fetch_model(hub_of(environ, token), model, _WEIGHTS, report))

    folder = on_disk(options.source, options.file)
    if options.tensors or not has_words(folder):
        model_path = model_file(folder, options.file)
        session = _session(model_path, options, report, environ)
        return OrtTensorRunner(
            session, joins=options.join_requests, on_cpu=options.providers == ("cpu",)
        )
    opening = partial(_opened, options=options, report=report, environ=environ)
    layout, session = opening(folder, options.file)
    tokenizer = tokenizer_of(layout)
    if _is_causal(session):
        report(Progress("trying the model"))
        model = _causal_model(options, layout, tokenizer, session)
        draft = None
        if options.draft is not None:
            source = on_disk(options.draft, options.draft_file)
            threads = options.draft_threads or options.threads
            layout_of_draft, opened = opening(
                source,
                options.draft_file,
                options=attrs.evolve(options, threads=threads),
                if_any=True,
            )
            draft = _draft(layout_of_draft, opened, options, tokenizer, model)
        return _causal(options, layout, model, draft)
    if options.draft is not None:
        raise ConfigError(f"{str(layout.model)!r} makes no text that can be drafted")
    return _reading(options, layout, tokenizer, session)


def _reading(
    options: Options, layout: Layout, tokenizer: ModelTokenizer, session: Session
) -> EmbedRunner:
    """Return the runner of a model that reads texts and writes none."""
    logits = [one.shape for one in session.get_outputs() if one.name == "logits"]
    if not logits:
        return _embedding(options, layout, tokenizer, session)
    if len(logits[0]) != 2:  # rows and labels
        raise EngineStartError(
            f"{str(layout.model)!r} has no key-value cache; export it with: "
            "optimum-cli export onnx --task text-generation-with-past"
        )
    ranks = logits[0][-1] == 1
    return EmbedRunner(
        RankingModel(session) if ranks else ClassifyingModel(session, layout.config),
        tokenizer,
        context_tokens=context_tokens(layout, options.context_tokens),
        batch_tokens=options.batch_tokens,
    )


def _opened(
    source: str,
    file: str | None,
    *,
    options: Options,
    report: Callable[[Progress], None],
    environ: Mapping[str, str],
    if_any: bool = False,
) -> tuple[Layout, Session]:
    report(Progress("reading the model's files"))
    layout = read_layout(source, file)
    with _made_for(layout, options):
        session = _session(layout.model, options, report, environ, if_any=if_any)
    return layout, renamed(session, layout.names)


@contextmanager
def _made_for(layout: Layout, options: Options) -> Iterator[None]:
    """Say of a model that fails that it was exported for something else."""
    try:
        yield
    except EngineStartError as error:
        other = [name for name in layout.made_for if name not in options.providers]
        if not other:
            raise
        raise EngineStartError(
            f"{error.message}; it was exported for {', '.join(other)}: run it there "
            "with providers = [...], or export it with -e cpu",
            code=error.code,
        ) from error


def _session(
    model: Path,
    options: Options,
    report: Callable[[Progress], None],
    environ: Mapping[str, str],
    *,
    if_any: bool = False,
) -> Session:
    bits = _BITS.get(options.weights)
    if bits is not None:
        model = with_bits(model, bits, cache_folder(environ), report, if_any=if_any)
    size = weights_bytes(model)
    if options.gpu is not None:
        check_fits_gpus(str(model), size, [options.gpu])
    elif options.providers[0] == "cpu":
        check_fits(str(model), size, free_bytes())
    report(Progress("loading the model", 0, size))
    session = open_session(model, options)
    report(Progress("loading the model", size, size))
    return session


def _is_causal(session: Session) -> bool:
    return any(one.name.startswith("past") for one in session.get_inputs())


# --- language models ------------------------------------------------------------


@attrs.frozen(eq=False)
class _Causal:
    """A language model, and what is known of it."""

    model: CausalModel
    abilities: Abilities
    tokenizer: ModelTokenizer
    context_tokens: int


def _causal_model(
    options: Options, layout: Layout, tokenizer: ModelTokenizer, session: Session
) -> _Causal:
    model = CausalModel(session, layout.config, gpu=options.gpu)
    with _made_for(layout, options):
        try:
            abilities = probe(model, tokenizer.size)
        except InferenceError:
            raise
        except Exception as error:
            # The library's errors have no common class but Exception.
            raise load_error(str(layout.model), error) from error
    context = context_tokens(layout, options.context_tokens)
    return _Causal(model, abilities, tokenizer, context)


def _draft(
    layout: Layout,
    session: Session,
    options: Options,
    tokenizer: ModelTokenizer,
    verifier: _Causal,
) -> _Causal:
    shown = str(layout.model)
    if not _is_causal(session):
        raise ConfigError(f"draft: {shown!r} is no language model with a cache")
    own = tokenizer_of(layout)
    if not own.same_as(tokenizer):
        raise ConfigError(f"draft: the tokenizer of {shown!r} is another one")
    draft = _causal_model(options, layout, own, session)
    drafted, known = _vocabulary(draft.model), _vocabulary(verifier.model)
    if drafted != known:
        raise ConfigError(
            f"draft: {shown!r} knows {drafted} tokens, and the model {known}"
        )
    if not (draft.abilities.pieces and verifier.abilities.pieces):
        raise ConfigError(
            "draft: one of the models reads single tokens only, and a draft is judged "
            "in one run"
        )
    return draft


def _vocabulary(model: CausalModel) -> int:
    """Return how many tokens a model's logits are of."""
    logits, _ = model.run(Rows([[0]], model.empty(), [0]))
    return int(logits.shape[-1])


def _causal(
    options: Options,
    layout: Layout,
    own: _Causal,
    draft: _Causal | None,
) -> OrtRunner:
    both = [own] if draft is None else [own, draft]
    context = min(one.context_tokens for one in both)
    of_a_token = sum(one.model.bytes_per_token for one in both)
    cache = options.cache_tokens or _cache_tokens(
        options, of_a_token, options.max_seqs * context
    )
    context = min(context, cache)
    drafts = 0 if draft is None else options.draft_tokens
    words = words_of(layout, own.tokenizer, drafts=drafts)
    bounds = Bounds(
        max_seqs=options.max_seqs,
        prefill_tokens=options.prefill_tokens,
        cache_tokens=cache,
    )
    engine = OrtEngine(own.model, own.abilities, bounds)
    if draft is not None:
        engine = DraftingEngine(
            (own.model, own.abilities),
            (draft.model, draft.abilities),
            bounds,
            pace=None if options.draft_always else Pace(drafts),
        )
    return OrtRunner(
        engine,
        words,
        context_tokens=context,
        max_seqs=options.max_seqs,
        schemas=Schemas(own.tokenizer, words.ends),
    )


def _cache_tokens(options: Options, bytes_per_token: int, most: int) -> int:
    """Return the tokens that the caches may hold, ``most`` at most."""
    free: int | None = None
    if options.gpu is not None:
        free = free_gpu_bytes(os.environ, [options.gpu])
    if free is None:
        # Of a GPU that nobody tells of, too: a bound that may be wrong is better than
        # a cache that grows until memory runs out under load.
        free = free_bytes()
    if free is None:
        return most
    return max(1, min(most, int(free * _CACHE_SHARE) // bytes_per_token))


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
