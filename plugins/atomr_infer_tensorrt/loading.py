"""Opening a model on TensorRT: a plan, or an ONNX file that is made into one.

What a model is, its inputs say: those of a causal model in Optimum's layout, those of
an encoder of texts, or others, which are given as tensors.

Blocks for as long as it takes; belongs in a worker thread.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import attrs

from atomr_infer.errors import OUT_OF_MEMORY, ConfigError, EngineStartError
from atomr_infer.runtimes.contract import Progress
from atomr_infer.runtimes.decoding.engine import Bounds
from atomr_infer.runtimes.files import expanded
from atomr_infer.runtimes.hub.exports import usual_export
from atomr_infer.runtimes.hub.fetching import fetch_model, hub_of
from atomr_infer.runtimes.hub.names import PREFIX, parse_hub_model
from atomr_infer.runtimes.memory import check_fits
from atomr_infer_ort.causal import PAST, cache_shape, probe
from atomr_infer_ort.classifying import ClassifyingModel
from atomr_infer_ort.embedding import EmbeddingModel, EmbedRunner, pooling_of
from atomr_infer_ort.engine import OrtEngine
from atomr_infer_ort.layout import Layout, read_layout
from atomr_infer_ort.ranking import KNOWN, RankingModel
from atomr_infer_ort.runner import OrtRunner
from atomr_infer_ort.schemas import Schemas
from atomr_infer_ort.words import context_tokens, tokenizer_of, words_of
from atomr_infer_tensorrt.cache import PlanCache, cache_folder
from atomr_infer_tensorrt.causal import PlanCausal
from atomr_infer_tensorrt.graph import Graph, read_graph
from atomr_infer_tensorrt.options import PLANS, is_plan
from atomr_infer_tensorrt.recipe import Recipe, key_of
from atomr_infer_tensorrt.running import PlanRuns, check_bindings
from atomr_infer_tensorrt.session import PlanSession
from atomr_infer_tensorrt.shapes import (
    causal_profiles,
    check_profile,
    rows_profile,
    texts_profiles,
)
from atomr_infer_tensorrt.tensors import PlanRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from atomr_infer.model.secret import Secret
    from atomr_infer_ort.session import Session
    from atomr_infer_tensorrt.options import Options
    from atomr_infer_tensorrt.plan import Backend, Device, Plan
    from atomr_infer_tensorrt.shapes import Profile

    Report = Callable[[Progress], None]
    Runner = PlanRunner | EmbedRunner | OrtRunner

_WEIGHTS = (".onnx", ".onnx_data", *PLANS)
_GIB = 2**30
_MIB = 2**20
_GPU = "the GPU's memory"
_CACHE_SHARE = 0.25
"""Of the GPU's free memory: a run holds the cache twice, before and behind it."""


@attrs.frozen(kw_only=True)
class Place:
    """Where a model is.

    Attributes:
        file: the plan or the ``.onnx`` file.
        layout: what is said of its texts beside it; None: it takes tensors.
    """

    file: Path
    layout: Layout | None


def open_backend(options: Options) -> Backend:
    """Return the library with a GPU.

    Raises:
        ConfigError: neither library can be imported, or CUDA's bindings cannot.
        EngineStartError: there is no GPU that can be used.
    """
    # These import what only a machine with a GPU needs.
    from atomr_infer_tensorrt.library import TensorRT, import_library  # noqa: PLC0415

    module = import_library(options.library)
    from atomr_infer_tensorrt.cuda import open_device  # noqa: PLC0415

    return TensorRT(module, open_device(options.device))


def load(
    options: Options,
    backend: Backend,
    report: Report,
    *,
    environ: Mapping[str, str],
    token: Secret | None = None,
) -> Runner:
    """Open a model.

    Raises:
        ConfigError: a file is missing, or a profile does not fit the model.
        EngineStartError: it cannot be parsed, built, opened or run.
    """
    source = options.source
    if source.startswith(PREFIX):
        model = attrs.evolve(parse_hub_model(source), export=options.file)
        source = str(fetch_model(hub_of(environ, token), model, _WEIGHTS, report))
    report(Progress("reading the model's files"))
    place = find_model(source, options.file)
    if options.tensors:
        place = attrs.evolve(place, layout=None)
    plan = _plan(options, backend, place, report, environ=environ)
    check_bindings(plan, str(place.file))
    # What reads or writes texts makes its runs one after the other.
    lanes = options.contexts if place.layout is None else 1
    _check_room(plan, backend.device, str(place.file), contexts=lanes)
    if place.layout is None:
        runs = PlanRuns(plan, backend.device, lanes=lanes)
        return PlanRunner(runs, lanes=lanes, joins=options.join_requests)
    names = {one.name for one in plan.bindings if one.is_input}
    if is_causal(names):
        return _causal(options, backend, plan, place.layout, report)
    return _texts(options, backend, plan, place.layout)


def find_model(source: str, file: str | None) -> Place:
    """Return where a model is, and what is said beside it.

    A directory with a tokenizer holds a model for texts.

    Raises:
        ConfigError: there is none; says what is there instead.
        EngineStartError: a settings file cannot be read.
    """
    path = expanded(source)
    if path.is_file():
        return Place(file=path, layout=None)
    if not path.is_dir():
        raise ConfigError(f"there is no model {str(path)!r}")
    if file is None and not any(path.glob("**/*.onnx")):
        file = _only_plan(path)
    if (path / "tokenizer.json").is_file():
        layout = read_layout(source, file)
        return Place(file=layout.model, layout=layout)
    found = path / (_onnx(path) if file is None else file)
    if not found.is_file():
        raise ConfigError(f"there is no file {str(found)!r}")
    return Place(file=found, layout=None)


def _only_plan(folder: Path) -> str:
    plans = sorted(one.name for one in folder.iterdir() if is_plan(one.name))
    if len(plans) == 1:
        return plans[0]
    names = ", ".join(plans)
    raise ConfigError(
        f"{str(folder)!r} holds several plans; name one with file = ...: {names}"
        if plans
        else f"{str(folder)!r} holds no .onnx file and no plan ({', '.join(PLANS)})"
    )


def _onnx(folder: Path) -> str:
    found = sorted(
        one.relative_to(folder).as_posix() for one in folder.glob("**/*.onnx")
    )
    # As of a hub: what another deployment fetches beside it changes nothing.
    usual = found[0] if len(found) == 1 else usual_export(found)
    if usual is not None:
        return usual
    names = ", ".join(found)
    raise ConfigError(
        f"{str(folder)!r} holds several models; name one with file = ...: {names}"
    )


def is_causal(names: Iterable[str]) -> bool:
    """Whether a model with these inputs has a key-value cache."""
    return any(PAST.fullmatch(name) for name in names)


# --- plans --------------------------------------------------------------------


def _plan(
    options: Options,
    backend: Backend,
    place: Place,
    report: Report,
    *,
    environ: Mapping[str, str],
) -> Plan:
    if is_plan(place.file.name):
        # It is weighed before it is read into the machine's memory.
        size = place.file.stat().st_size
        check_fits(str(place.file), size, backend.device.free_bytes(), where=_GPU)
        report(Progress("opening the plan"))
        return backend.open(place.file.read_bytes(), str(place.file))
    graph = read_graph(place.file)
    recipe = recipe_of(options, graph, place.layout)
    built = _built(options, backend, graph, recipe, report, environ=environ)
    check_fits(str(place.file), len(built), backend.device.free_bytes(), where=_GPU)
    report(Progress("opening the plan"))
    return backend.open(built, str(place.file))


def _check_room(plan: Plan, device: Device, name: str, *, contexts: int) -> None:
    """Refuse a plan whose runs have no memory to compute in.

    Raises:
        EngineStartError: with both figures.
    """
    needed, free = contexts * plan.context_bytes, device.free_bytes()
    if needed > free:
        raise EngineStartError(
            f"the plan of {name!r} does not fit: beside its weights its runs take "
            f"{needed // _MIB} MiB ({contexts} at once), and {free // _MIB} MiB of "
            f"{_GPU} are free; lower contexts, max_batch or the profiles, or use "
            "another machine",
            code=OUT_OF_MEMORY,
        )


def _built(
    options: Options,
    backend: Backend,
    graph: Graph,
    recipe: Recipe,
    report: Report,
    *,
    environ: Mapping[str, str],
) -> bytes:
    folder = (
        cache_folder(environ)
        if options.plan_cache is None
        else expanded(options.plan_cache)
    )
    cache = PlanCache(folder, options.plan_cache_gib * _GIB)
    identity = backend.identity
    key = key_of(graph.digest(), recipe, identity)
    with cache.alone(key):
        found = cache.find(key)
        if found is None:
            found = backend.build(graph.path, recipe, report)
            cache.keep(
                key,
                found,
                {
                    "model": str(graph.path),
                    "precision": recipe.precision.value,
                    **attrs.asdict(identity),
                },
            )
    return found


def recipe_of(options: Options, graph: Graph, layout: Layout | None) -> Recipe:
    """Return how a model's plan is built.

    Raises:
        ConfigError: a profile does not fit the model, or one is needed.
    """
    profiles = options.profiles or _own_profiles(options, graph, layout)
    for number, profile in enumerate(profiles):
        problem = check_profile(profile, graph.inputs)
        if problem is not None:
            raise ConfigError(f"profiles[{number}] of {str(graph.path)!r}: {problem}")
    return Recipe(
        profiles=profiles,
        precision=options.precision,
        workspace_mib=options.workspace_mib,
        optimization_level=options.optimization_level,
    )


def _own_profiles(
    options: Options, graph: Graph, layout: Layout | None
) -> tuple[Profile, ...]:
    names = {one.name for one in graph.inputs}
    if layout is not None and is_causal(names):
        return causal_profiles(
            graph.inputs,
            max_seqs=options.max_seqs,
            prefill_tokens=options.prefill_tokens,
            context_tokens=context_tokens(layout, options.context_tokens),
            heads=_heads(graph, layout),
        )
    if layout is not None and names <= KNOWN:
        return texts_profiles(
            graph.inputs,
            max_batch=options.max_batch,
            context_tokens=_text_tokens(options, layout),
            batch_tokens=options.batch_tokens,
        )
    found = rows_profile(graph.inputs, options.max_batch)
    if found is None:
        shapes = ", ".join(map(str, graph.inputs))
        raise ConfigError(
            f"{str(graph.path)!r} takes {shapes}: say with profiles = [...] which "
            "sizes the plan shall take"
        )
    return (found,)


def _heads(graph: Graph, layout: Layout) -> tuple[int, int]:
    first = next(one for one in graph.inputs if PAST.fullmatch(one.name))
    return cache_shape(first.sizes, layout.config)


def _text_tokens(options: Options, layout: Layout) -> int:
    context = context_tokens(layout, options.context_tokens)
    return min(context, layout.max_seq_length or context)


# --- runners ------------------------------------------------------------------


def _texts(
    options: Options, backend: Backend, plan: Plan, layout: Layout
) -> EmbedRunner:
    runs = PlanRuns(plan, backend.device, lanes=1)
    # It has what models of texts ask of a session.
    session = cast("Session", PlanSession(runs))
    labels = [
        one.shape[-1]
        for one in session.get_outputs()
        if one.name == "logits" and len(one.shape) == len(("rows", "labels"))
    ]
    model: EmbeddingModel | RankingModel | ClassifyingModel
    if not labels:
        pooling, normalize = pooling_of(options.for_texts, layout)
        model = EmbeddingModel(session, pooling=pooling, normalize=normalize)
    elif labels == [1]:
        model = RankingModel(session)
    else:
        model = ClassifyingModel(session, layout.config)
    return EmbedRunner(
        model,
        tokenizer_of(layout),
        context_tokens=_text_tokens(options, layout),
        batch_tokens=options.batch_tokens,
    )


def _causal(
    options: Options,
    backend: Backend,
    plan: Plan,
    layout: Layout,
    report: Report,
) -> OrtRunner:
    model = PlanCausal(plan, backend.device, layout.config)
    tokenizer = tokenizer_of(layout)
    report(Progress("trying the model"))
    abilities = probe(model, tokenizer.size)
    if not abilities.pieces:
        raise EngineStartError(
            f"{str(layout.model)!r} cannot read a prompt in pieces, for which its "
            "plan is built"
        )
    context = context_tokens(layout, options.context_tokens)
    free = int(backend.device.free_bytes() * _CACHE_SHARE) // model.bytes_per_token
    cache = options.cache_tokens or max(1, min(options.max_seqs * context, free))
    model.keep_within(cache)
    context = min(context, cache)
    bounds = Bounds(
        max_seqs=options.max_seqs,
        prefill_tokens=options.prefill_tokens,
        cache_tokens=cache,
    )
    engine = OrtEngine(model, abilities, bounds)
    words = words_of(layout, tokenizer)
    return OrtRunner(
        engine,
        words,
        context_tokens=context,
        max_seqs=options.max_seqs,
        schemas=Schemas(tokenizer, words.ends),
    )
