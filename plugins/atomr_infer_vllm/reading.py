"""What of vLLM is needed for models that read texts: vectors, labels, ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atomr_infer.errors import ConfigError, EngineStartError
from atomr_infer.runtimes.files import expanded
from atomr_infer_vllm.faults import start_error
from atomr_infer_vllm.options import Task
from atomr_infer_vllm.pooling import Classifying, Embedding, Pooling, Ranking

if TYPE_CHECKING:
    from atomr_infer_vllm.options import Options
    from atomr_infer_vllm.pooling import Pair

_POOLING = {Task.EMBED: "embed", Task.CLASSIFY: "classify", Task.RERANK: "classify"}
"""vLLM's word for what is asked of a model; one that ranks has one label."""


async def check_task(engine: Any, options: Options) -> None:  # noqa: ANN401  AsyncLLM
    """Refuse an engine whose model is for something else; in the engine's loop.

    Raises:
        EngineStartError: says what it is for.
    """
    wanted = _POOLING.get(options.task)
    if wanted is None:
        return  # vLLM refuses to start another one
    does = await engine.get_supported_tasks()
    if wanted not in does:
        raise EngineStartError(
            f"the model {options.weights!r} is not one for task = "
            f"{options.task.value!r}; vLLM says that it does: {', '.join(does)}"
        )


def pooling_of(engine: Any, options: Options) -> Pooling:  # noqa: ANN401  AsyncLLM
    """Return what an engine's model does with texts.

    Raises:
        ConfigError: the chat template is not there, or this vLLM cannot rank.
        EngineStartError: the model says more than one number, and is to rank.
    """
    if options.task is Task.EMBED:
        return Embedding(_params)
    config = engine.model_config.hf_config
    if options.task is Task.CLASSIFY:
        return Classifying(_params, config)
    return Ranking(_params, config, _pair(engine, options))


def template_of(options: Options) -> str | None:
    """Return the chat template that a deployment names; None: it names none.

    Raises:
        ConfigError: it cannot be read.
    """
    if options.chat_template is None:
        return None
    try:
        return expanded(options.chat_template).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"the chat template cannot be read: {error}") from error


def _params(**given: object) -> object:
    from vllm import PoolingParams  # noqa: PLC0415  not to list runtimes

    return PoolingParams(**given)


def _pair(engine: Any, options: Options) -> Pair:  # noqa: ANN401  AsyncLLM
    """Return what puts a query and a text together, as vLLM's own server does.

    A model may want them in words of its own, with a mark between them, or without.
    """
    try:
        from vllm.entrypoints.pooling.scoring.io_processor import (  # noqa: PLC0415
            CrossEncoderIOProcessor,
        )
        from vllm.entrypoints.pooling.scoring.utils import (  # noqa: PLC0415
            compress_token_type_ids,
        )
        from vllm.renderers.chat_utils import ChatTemplateConfig  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            f"task is 'rerank', and this vLLM cannot be asked to rank ({error}); it is "
            "known of 0.32"
        ) from error
    template = template_of(options)
    try:
        processor = CrossEncoderIOProcessor(
            vllm_config=engine.vllm_config,
            renderer=engine.renderer,
            chat_template_config=ChatTemplateConfig(chat_template=template),
        )
    except ValueError as error:
        raise start_error(options.weights, error) from error

    def pair(query: str, text: str) -> tuple[list[int], int | None]:
        _, prompt = processor.get_score_prompt(
            query, text, {"add_special_tokens": True}, chat_template=template
        )
        kinds = prompt.get("token_type_ids")
        begins = None if kinds is None else compress_token_type_ids(kinds)
        return list(prompt["prompt_token_ids"]), begins

    return pair
