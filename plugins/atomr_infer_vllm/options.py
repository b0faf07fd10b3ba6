"""What a deployment on vLLM may say, parsed and checked.

Pure: whether a file is there, and whether vLLM has an argument of that name, is
seen when the engine starts.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

import attrs

from atomr_infer.errors import ConfigError
from atomr_infer.runtimes.files import expanded
from atomr_infer.runtimes.hub.names import PREFIX, parse_hub_model

if TYPE_CHECKING:
    from pathlib import Path

    from atomr_infer.model.deployment import Deployment, OptionValue

DEFAULT_MAX_SEQS = 64
"""Sequences in one step.  More cost nothing where they are not there; where they
are, each of them waits a little longer for its next token."""

OURS = {
    "model": "model, or weights",
    "tokenizer": "model, or weights",
    "max_model_len": "context_tokens",
    "max_num_seqs": "max_seqs",
    "tensor_parallel_size": "tensor_parallel",
    "gpu_memory_utilization": "gpu_memory",
    "enable_prefix_caching": "prefix_caching",
    "enforce_eager": "eager",
    "enable_lora": "lora",
    "runner": "task",
    "dtype": "dtype",
    "quantization": "quantization",
    "hf_token": "the deployment's credential",
}
"""Arguments of vLLM's engine that have an option here."""

ALWAYS = {
    "disable_log_stats": "by what it logs it is seen whether it is stuck",
    "enable_logging_iteration_details": "by it is seen what a step did",
}
"""Arguments of vLLM's engine that are as they must be here, and why."""

ALSO_SPREAD_OVER = ("pipeline_parallel_size", "data_parallel_size")
"""Arguments of vLLM's engine that say of more GPUs.  Data are spread over copies of
most models, but experts over the GPUs of all of them."""
_OF_A_PATH = ("/", "./", "../", "~")
"""How a path begins.  Another name is the hub's, with its ``hf:`` or without."""


class Task(Enum):
    """What a model is loaded for."""

    GENERATE = "generate"
    EMBED = "embed"
    CLASSIFY = "classify"
    RERANK = "rerank"


@attrs.frozen(kw_only=True)
class Options:
    """A deployment's model and options.

    Attributes:
        weights: the model's directory, in Hugging Face's layout, or its name on the
            hub, with ``hf:`` before it or not; instead of ``model``, where clients
            choose among adapters by name.
        task: what the model is for: ``generate``, ``embed``, ``classify``, or
            ``rerank``.
        dtype: the numbers' type: ``auto``, ``bfloat16``, ``float16``, ``float32``.
        quantization: how the weights are quantized, in vLLM's words; None: as the
            model's files say.
        context_tokens: bounds prompt and answer of one request; None: the model's
            own bound.
        max_seqs: sequences that are decoded together.
        tensor_parallel: GPUs over which each layer is spread.
        gpu_memory: share of a GPU's memory that the engine takes.
        cpu_cache_gib: memory for the key-value cache on a CPU; None: vLLM takes a
            large share of what is free.
        prefix_caching: whether prompts that begin alike are read once.
        eager: whether the model runs without being compiled first; None: on a CPU.
        lora: adapters by the model name that a client asks for; the names belong
            into ``serves`` too.
        lora_rank: the largest rank of those adapters.
        tool_parser: which of vLLM's parsers finds tool calls in an answer, such as
            ``hermes``; None: tools are called only where a request requires it.
        chat_template: a file with a template instead of the model's own; of one that
            ranks, it writes the query and the document.
        engine: further arguments of vLLM's engine, by vLLM's names.
    """

    weights: str
    task: Task = Task.GENERATE
    dtype: str = "auto"
    quantization: str | None = None
    context_tokens: int | None = None
    max_seqs: int = DEFAULT_MAX_SEQS
    tensor_parallel: int = 1
    gpu_memory: float = 0.9
    cpu_cache_gib: int | None = None
    prefix_caching: bool = True
    eager: bool | None = None
    lora: Mapping[str, str] = attrs.field(factory=dict)
    lora_rank: int = 16
    tool_parser: str | None = None
    chat_template: str | None = None
    engine: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def folder(self) -> Path | None:
        """The model's directory; None: the weights are on the hub.

        Raises:
            ConfigError: there is no such home, or no file can be called so.

        >>> Options(weights="Qwen/Qwen3-8B").folder is None
        True
        """
        if not self.weights.startswith(_OF_A_PATH):
            return None
        return expanded(self.weights)


def parse_options(deployment: Deployment) -> Options:
    """Return what the deployment asks for.

    Raises:
        ConfigError: the model is missing or named twice, an option is unknown (with
            the nearest name) or has a value that is not allowed.
    """
    taken: dict[str, Any] = {}
    for name, value in deployment.options.items():
        if name not in _PARSERS:
            raise ConfigError(_unknown_option(deployment.name, name))
        try:
            taken[name] = _PARSERS[name](value)
        except _NotAllowedError as error:
            raise ConfigError(
                f"deployment {deployment.name!r}: {name} is {value!r}; {error}"
            ) from error
    if ("weights" in taken) == (deployment.model is not None):
        raise ConfigError(
            f"deployment {deployment.name!r}: vllm needs a model: its directory or its "
            "name on the hub, as model, or as options.weights where clients choose "
            "among adapters"
        )
    taken.setdefault("weights", deployment.model)
    options = Options(**taken)
    _check_task(deployment.name, options.task, taken)
    _weights(options)
    _check_adapters(deployment, options)
    return options


class _NotAllowedError(Exception):
    """A value is not allowed; the text says what is."""


def _unknown_option(deployment: str, name: str) -> str:
    start = f"deployment {deployment!r}: vllm has no option {name!r}"
    if name in OURS:
        return f"{start}; write {OURS[name]}"
    near = difflib.get_close_matches(name, _PARSERS, n=1)
    if near:
        return f"{start}; did you mean {near[0]!r}?"
    return (
        f"{start}; known: {', '.join(_PARSERS)}; arguments of vLLM's engine belong "
        "under engine"
    )


_ONLY_FOR = {
    "tool_parser": (Task.GENERATE,),
    "prefix_caching": (Task.GENERATE,),
    "chat_template": (Task.GENERATE, Task.RERANK),
}
"""Options that say something of models for some tasks only."""


def _check_task(deployment: str, task: Task, taken: Mapping[str, Any]) -> None:
    for name, tasks in _ONLY_FOR.items():
        if name in taken and task not in tasks:
            names = " or ".join(repr(one.value) for one in tasks)
            raise ConfigError(
                f"deployment {deployment!r}: {name} is for task = {names}, and task is "
                f"{task.value!r}; leave {name} out"
            )


def _check_adapters(deployment: Deployment, options: Options) -> None:
    if not options.lora:
        return
    if deployment.model is not None:
        raise ConfigError(
            f"deployment {deployment.name!r}: with model, every request is for "
            "that model; write it as options.weights, so that clients' names choose "
            "an adapter"
        )
    for name in options.lora:
        if name not in deployment.serves:
            raise ConfigError(
                f"deployment {deployment.name!r}: nobody can ask for the adapter "
                f"{name!r}; add it to serves"
            )


# --- values -------------------------------------------------------------------


def _text(value: OptionValue) -> str:
    if isinstance(value, str) and value.strip():
        return value
    raise _NotAllowedError("give a text")


def _one_of(*allowed: str) -> Callable[[OptionValue], str]:
    def parse(value: OptionValue) -> str:
        if isinstance(value, str) and value in allowed:
            return value
        raise _NotAllowedError(f"give one of {', '.join(map(repr, allowed))}")

    return parse


def _task(value: OptionValue) -> Task:
    return Task(_one_of(*(task.value for task in Task))(value))


def _flag(value: OptionValue) -> bool:
    if isinstance(value, bool):
        return value
    raise _NotAllowedError("give true or false")


def _whole(most: int, where: str = "") -> Callable[[OptionValue], int]:
    def parse(value: OptionValue) -> int:
        # A bool is an int to Python, and no number to a person.
        if (
            isinstance(value, int)
            and not isinstance(value, bool)
            and 1 <= value <= most
        ):
            return value
        raise _NotAllowedError(f"{where}give a whole number from 1 to {most}")

    return parse


def _share(value: OptionValue) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and 0 < value <= 1:  # type: ignore[operator] # a number, as is_number says
        return float(value)  # type: ignore[arg-type] # as above
    raise _NotAllowedError("give a number above 0 and at most 1")


def _paths(value: OptionValue) -> dict[str, str]:
    if isinstance(value, Mapping) and all(
        isinstance(path, str) and path for path in value.values()
    ):
        return {name: str(path) for name, path in value.items()}
    raise _NotAllowedError("give a table with an adapter's directory for each name")


def _arguments(value: OptionValue) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _NotAllowedError("give a table of vLLM's arguments")
    for name in value:
        if name in OURS:
            raise _NotAllowedError(f"{name!r} has an option here: {OURS[name]}")
        if name in ALWAYS:
            raise _NotAllowedError(f"{name!r} cannot be set: {ALWAYS[name]}")
    for name in value.keys() & set(ALSO_SPREAD_OVER):
        _whole(65_536, f"for {name!r}, ")(value[name])
    return dict(value)


_PARSERS: Mapping[str, Callable[[OptionValue], object]] = {
    "weights": _text,
    "task": _task,
    "dtype": _one_of("auto", "bfloat16", "float16", "float32"),
    "quantization": _text,
    "context_tokens": _whole(100_000_000),
    "max_seqs": _whole(65_536),
    "tensor_parallel": _whole(1024),
    "gpu_memory": _share,
    "cpu_cache_gib": _whole(65_536),
    "prefix_caching": _flag,
    "eager": _flag,
    "lora": _paths,
    "lora_rank": _whole(1024),
    "tool_parser": _text,
    "chat_template": _text,
    "engine": _arguments,
}


# --- to vLLM's terms ------------------------------------------------------------


def _weights(options: Options) -> dict[str, str | None]:
    """Return vLLM's arguments for where the weights are; it asks the hub itself.

    Raises:
        ConfigError: they are one file of a model, or are not named as models are, or
            are in a home that does not exist.
    """
    if options.folder is not None:
        return {"model": str(options.folder)}
    repo, revision = hub_name(options)
    if options.weights.startswith(PREFIX):
        return {"model": repo, "revision": revision}
    return {"model": repo}


def hub_name(options: Options) -> tuple[str, str | None]:
    """Return the name of a model that is on the hub, and its revision.

    Raises:
        ConfigError: it is one file of a model, or is not named as models are.

    >>> hub_name(Options(weights="hf:org/tiny@v1"))
    ('org/tiny', 'v1')
    """
    if not options.weights.startswith(PREFIX):
        return options.weights, options.engine.get("revision")
    model = parse_hub_model(options.weights)
    if model.file is not None:
        raise ConfigError(
            f"the model is {options.weights!r}, one file; vllm reads whole models: "
            f"{PREFIX}{model.repo}"
        )
    return model.repo, model.revision


def engine_arguments(
    options: Options, *, on_cpu: bool, has_token: bool = False
) -> dict[str, Any]:
    """Return the arguments of vLLM's ``AsyncEngineArgs``.

    Args:
        options: what the deployment asks for.
        on_cpu: whether vLLM runs on a CPU here.
        has_token: whether ``HF_TOKEN`` is the deployment's credential.
    """
    generates = options.task is Task.GENERATE
    arguments: dict[str, Any] = {
        **options.engine,
        **_weights(options),
        "runner": "generate" if generates else "pooling",
        "dtype": options.dtype,
        "max_num_seqs": options.max_seqs,
        "tensor_parallel_size": options.tensor_parallel,
        "enforce_eager": on_cpu if options.eager is None else options.eager,
    }
    if has_token:
        # True and not the token itself: what vLLM is given, it may show.
        arguments["hf_token"] = True
    if options.quantization is not None:
        arguments["quantization"] = options.quantization
    if options.context_tokens is not None:
        arguments["max_model_len"] = options.context_tokens
    if not on_cpu:
        arguments["gpu_memory_utilization"] = options.gpu_memory
    if generates:
        arguments["enable_prefix_caching"] = options.prefix_caching
    if options.lora:
        arguments |= {"enable_lora": True, "max_lora_rank": options.lora_rank}
        arguments["max_loras"] = len(options.lora)
    return arguments


def refuse_unknown_arguments(
    deployment: str, options: Options, known: frozenset[str]
) -> None:
    """Refuse further arguments that this vLLM does not have.

    Args:
        deployment: its name.
        options: what it asks for.
        known: the arguments' names.

    Raises:
        ConfigError: names the first one, with the nearest known one.
    """
    for name in options.engine:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"deployment {deployment!r}: vLLM's engine has no argument "
                f"{name!r}{hint}"
            )
