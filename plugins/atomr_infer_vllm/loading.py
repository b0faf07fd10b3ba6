"""Starting an engine of vLLM's, and what its runner is given of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from atomr_infer.errors import ConfigError
from atomr_infer.runtimes.contract import Progress
from atomr_infer.runtimes.files import expanded
from atomr_infer_vllm.embedding import VllmEmbedder
from atomr_infer_vllm.faults import start_error
from atomr_infer_vllm.fit import check_model_fits
from atomr_infer_vllm.options import (
    Options,
    Task,
    engine_arguments,
    refuse_unknown_arguments,
)
from atomr_infer_vllm.reading import pooling_of, template_of
from atomr_infer_vllm.runner import Parts, VllmRunner, Watched
from atomr_infer_vllm.telling import EXTENSION

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from atomr_infer.model.secret import Secret
    from atomr_infer_vllm.loop import LoopThread
    from atomr_infer_vllm.steps import SchedulerStats, Steps

    Report = Callable[[Progress], None]


_OVER_THE_TOKEN = ("HF_OIDC_RESOURCE", "HF_HUB_DISABLE_IMPLICIT_TOKEN")
"""Variables by which the hub's library takes another token, or none at all."""


def prepare(
    deployment: str,
    options: Options,
    report: Report,
    token: Secret | None = None,
) -> Any:  # noqa: ANN401  AsyncEngineArgs
    """Import vLLM and return its engine's arguments; blocks for seconds.

    Args:
        deployment: its name.
        options: what it asks for.
        report: told what happens.
        token: opens models of the hub that are not public; it becomes the ``HF_TOKEN``
            of this process and of those below it.

    Raises:
        ConfigError: vLLM cannot be imported, or has no argument of that name, or a
            file is missing.
        EngineStartError: the weights do not fit into memory.
    """
    _set_environment(options, token)
    _check_files(deployment, options)
    report(Progress("importing vLLM"))
    try:
        from vllm import AsyncEngineArgs  # noqa: PLC0415  not to list runtimes
        from vllm.platforms import current_platform  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            f"vLLM cannot be imported ({error}); run: pip install 'atomr-infer[vllm]'"
        ) from error
    known = frozenset(AsyncEngineArgs.__dataclass_fields__)
    refuse_unknown_arguments(deployment, options, known)
    _parser_kind(options)  # before the minute that a start takes
    on_cpu = current_platform.is_cpu()
    check_model_fits(options, report, on_cpu=on_cpu)
    arguments = engine_arguments(options, on_cpu=on_cpu, has_token=token is not None)
    if "worker_extension_cls" in known:
        arguments.setdefault("worker_extension_cls", EXTENSION)
    return AsyncEngineArgs(
        **arguments, disable_log_stats=False, enable_logging_iteration_details=True
    )


def _set_environment(options: Options, token: Secret | None) -> None:
    # It would tell its makers who uses it.
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    # A fork of a process with threads may stand still.
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    if options.cpu_cache_gib is not None:
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(options.cpu_cache_gib)
    if token is not None:
        # vLLM's processes inherit it, and it is in no argument that might be shown.
        os.environ["HF_TOKEN"] = token.reveal()
        for name in _OVER_THE_TOKEN:
            os.environ.pop(name, None)


def _check_files(deployment: str, options: Options) -> None:
    folder = options.folder
    if folder is not None and not folder.exists():
        raise ConfigError(f"deployment {deployment!r}: there is no model {folder}")
    template = options.chat_template
    if template is not None and not expanded(template).is_file():
        raise ConfigError(
            f"deployment {deployment!r}: there is no chat template {template}"
        )
    for name, path in options.lora.items():
        if not expanded(path).is_dir():
            raise ConfigError(
                f"deployment {deployment!r}: there is no adapter {path} for {name!r}"
            )


async def start(
    arguments: Any,  # noqa: ANN401  AsyncEngineArgs
    options: Options,
    steps: Steps,
) -> Any:  # noqa: ANN401  AsyncLLM
    """Start the engine, in its loop; takes half a minute and more.

    Args:
        arguments: what it is made of.
        options: the deployment's.
        steps: is told each of its steps.

    Raises:
        EngineStartError: it cannot.
    """
    from vllm.usage.usage_lib import UsageContext  # noqa: PLC0415  as above
    from vllm.v1.engine.async_llm import AsyncLLM  # noqa: PLC0415  as above

    try:
        config = arguments.create_engine_config(UsageContext.ENGINE_CONTEXT)
        if "structured_outputs_config" not in options.engine:
            # A small model may write blanks until its tokens are over.  Set and not
            # given: vLLM takes it only beside a grammar engine by name, and would then
            # refuse what that one cannot do instead of asking another.
            config.structured_outputs_config.disable_any_whitespace = True
        # Without its own loggers, for which ours is one; what is told to its metrics
        # is not less.
        return AsyncLLM.from_vllm_config(
            config,
            stat_loggers=[_step_logger(steps)],
            enable_log_requests=arguments.enable_log_requests,
            disable_log_stats=True,
        )
    except Exception as error:
        raise start_error(options.weights, error) from error


def _step_logger(steps: Steps) -> type:
    """Return what logs vLLM's figures when it is asked to, and counts its steps."""
    from vllm.v1.metrics.loggers import LoggingStatLogger  # noqa: PLC0415  as above

    class StepLogger(LoggingStatLogger):  # type: ignore[misc] # vLLM is not here
        """Told of each step."""

        def record(
            self,
            scheduler_stats: SchedulerStats | None,
            *more: object,
            **named: object,
        ) -> None:
            """Take what a step came to."""
            steps.take(scheduler_stats)
            super().record(scheduler_stats, *more, **named)

        def _log_iteration_details(self, *_: object) -> None:
            """Log nothing: it would be a line for each step."""

    return StepLogger


def runner_of(
    loop: LoopThread,
    engine: Any,  # noqa: ANN401  AsyncLLM
    options: Options,
    steps: Steps,
) -> VllmRunner | VllmEmbedder:
    """Return the runner of an engine that has started.

    Args:
        loop: the engine's.
        engine: the one.
        options: the deployment's.
        steps: counts its steps.

    Raises:
        ConfigError: the chat template or the tool parser is not there.
        EngineStartError: the model is not one for the task.
    """
    life = Watched(loop, engine, _metrics, steps)
    bounds = {
        "context_tokens": engine.model_config.max_model_len,
        "max_seqs": options.max_seqs,
    }
    if options.task is Task.GENERATE:
        return VllmRunner(life, _parts(engine, options), **bounds)
    pooling = pooling_of(engine, options)
    return VllmEmbedder(life, pooling, adapters=_adapters(options), **bounds)


def _metrics() -> Any:  # noqa: ANN401  vLLM's
    from vllm.v1.metrics.reader import get_metrics_snapshot  # noqa: PLC0415

    # A histogram has no one value, and a vector has several.
    return [each for each in get_metrics_snapshot() if hasattr(each, "value")]


def _parts(engine: Any, options: Options) -> Parts:  # noqa: ANN401  AsyncLLM
    tokenizer = engine.get_tokenizer()
    return Parts(
        tokenizer=tokenizer,
        chat_template=_chat_template(tokenizer, options),
        defaults=engine.model_config.get_diff_sampling_param(),
        sampling_params=_sampling_params,
        adapters=_adapters(options),
        parser=_parser(tokenizer, options),
    )


def _chat_template(tokenizer: Any, options: Options) -> str | None:  # noqa: ANN401  HF's
    own: str | None = getattr(tokenizer, "chat_template", None)
    return own if options.chat_template is None else template_of(options)


def _sampling_params(
    arguments: Mapping[str, Any], structured: Mapping[str, Any]
) -> object:
    from vllm import SamplingParams  # noqa: PLC0415
    from vllm.sampling_params import (  # noqa: PLC0415
        RequestOutputKind,
        StructuredOutputsParams,
    )

    known = {
        k: v for k, v in arguments.items() if k in SamplingParams.__struct_fields__
    }
    return SamplingParams(
        **known,
        output_kind=RequestOutputKind.DELTA,
        structured_outputs=StructuredOutputsParams(**structured)
        if structured
        else None,
    )


def _adapters(options: Options) -> dict[str, object]:
    if not options.lora:
        return {}
    from vllm.lora.request import LoRARequest  # noqa: PLC0415

    return {
        name: LoRARequest(name, number, str(expanded(path)))
        for number, (name, path) in enumerate(options.lora.items(), start=1)
    }


def _parser(
    tokenizer: Any,  # noqa: ANN401  HF's
    options: Options,
) -> Callable[[Sequence[Mapping[str, Any]]], tuple[object, object]] | None:
    kind = _parser_kind(options)
    if kind is None:
        return None
    from vllm.entrypoints.openai.chat_completion.protocol import (  # noqa: PLC0415
        ChatCompletionRequest,
    )

    def make(tools: Sequence[Mapping[str, Any]]) -> tuple[object, object]:
        request = ChatCompletionRequest(
            messages=[{"role": "user", "content": ""}], model="", tools=list(tools)
        )
        return kind(tokenizer, request.tools), request

    return make


def _parser_kind(options: Options) -> Any:  # noqa: ANN401  a class of vLLM's
    if options.tool_parser is None:
        return None
    from vllm.tool_parsers import ToolParserManager  # noqa: PLC0415

    try:
        return ToolParserManager.get_tool_parser(options.tool_parser)
    except KeyError as error:
        known = {*ToolParserManager.tool_parsers, *ToolParserManager.lazy_parsers}
        raise ConfigError(
            f"vLLM has no tool parser {options.tool_parser!r}; known: "
            f"{', '.join(sorted(known))}"
        ) from error
