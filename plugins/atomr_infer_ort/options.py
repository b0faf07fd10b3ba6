"""What a deployment on ONNX Runtime may say, parsed and checked.

Pure: whether a file is there is ``layout``'s question, and whether a provider is
built in is ``session``'s.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

import attrs

from atomr_infer.errors import ConfigError
from atomr_infer.runtimes.hub.names import PREFIX, model_and_export, parse_hub_model

if TYPE_CHECKING:
    from atomr_infer.model.deployment import Deployment, OptionValue

DEFAULT_MAX_SEQS = 8
"""Sequences that are decoded in one step.  On two cores, eight give about four
times the tokens of one; more gain little there and much on a GPU."""

MAX_MAX_SEQS = 1024
"""A step's memory is bounded by ``cache_tokens``; this catches a slip."""

DEFAULT_PREFILL_TOKENS = 64
"""A request that is cancelled waits for its step, and those beside it wait for a
prompt's piece: 64 tokens of a small model take a fifth of a second on two cores."""

DEFAULT_DRAFT_TOKENS = 4
"""Tokens that a draft proposes at once, at most."""

DEFAULT_BATCH_TOKENS = 4096
"""Texts that are embedded in one run, padding counted."""

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
}
"""What a configuration calls ONNX Runtime's execution providers."""

_ON_CUDA = ("cuda", "tensorrt")
_DEVICE_ID = "device_id"

_MEANT = {"gpu": "cuda", "nvidia": "cuda", "trt": "tensorrt", "amd": "migraphx"}
"""Where the nearest name is not what was meant: ``gpu`` is near to ``cpu``."""


class Pooling(Enum):
    """How a text's vector is made of its tokens' vectors."""

    AUTO = "auto"
    MEAN = "mean"
    CLS = "cls"
    LAST = "last"


class Weights(Enum):
    """In how many bits the weights of matrix products are kept."""

    MODEL = "model"
    INT8 = "int8"
    INT4 = "int4"


class Normalize(Enum):
    """Whether vectors are made as long as one."""

    AUTO = "auto"
    YES = "yes"
    NO = "no"


@attrs.frozen(kw_only=True)
class Options:
    """A deployment's model and options.

    Attributes:
        source: the model's directory.
        file: the ``.onnx`` file inside the directory; None: the usual names are
            tried, and else one alone is taken. Of a hub's model it chooses what is
            fetched.
        weights: what the weights of matrix products are kept in: ``model`` (as the
            file says), ``int8`` or ``int4``, for which a file with weights in 32 bits
            is converted once, into the cache.  So is the draft's, unless it has none
            in 32 bits.
        providers: execution providers, the preferred first: ``cpu``, ``cuda``,
            ``tensorrt``, ``openvino`` and others; one that cannot be used stops
            the start.
        provider_options: a table of ONNX Runtime's own options for each
            provider: ``{ cuda = { device_id = "1" } }``.
        threads: processor threads of one step; None: one for each core.
        max_seqs: sequences that are decoded together in one step.
        prefill_tokens: tokens of a prompt that are read in one step, beside the
            sequences that are decoded.
        cache_tokens: tokens that the key-value caches of all sequences hold;
            None: what a quarter of the free memory holds, the GPU's where the
            caches are there and it is known.  A request waits until its
            prompt and ``max_tokens`` fit.
        context_tokens: bounds prompt and answer of one request; None: the
            model's own bound.
        draft: the directory, or the hub's name, of a small model with the same
            tokenizer: it proposes tokens, of which the model takes those that leave
            its answers as they are; None: there is none.
        draft_file: the ``.onnx`` file inside that directory; None: as for ``file``,
            of a hub's model, too.
        draft_tokens: how many tokens are proposed at once, at most; how many are, is
            what was measured to give most tokens a second.
        draft_threads: processor threads of one step of the draft; None: as many as
            ``threads``.  A small one may be faster with 1, for its threads have little
            to do between two times that they wait for each other.
        draft_always: whether tokens are proposed where it was measured that the
            model alone is faster, too.
        pooling: how a text's vector is made; ``auto``: as the model's files say.
        normalize: whether vectors are made as long as one; ``auto``: as the
            model's files say.
        batch_tokens: tokens of texts that are embedded in one step, padding
            counted.
        tensors: whether the model takes tensors, and no texts; a directory without
            ``config.json`` and ``tokenizer.json`` does so anyway.
        join_requests: whether tensors of several requests share a run, by their
            first dimension, which must then be rows that are each for themselves.
    """

    source: str
    file: str | None = None
    weights: Weights = Weights.MODEL
    providers: tuple[str, ...] = ("cpu",)
    provider_options: Mapping[str, Mapping[str, str]] = attrs.field(factory=dict)
    threads: int | None = None
    max_seqs: int = DEFAULT_MAX_SEQS
    prefill_tokens: int = DEFAULT_PREFILL_TOKENS
    cache_tokens: int | None = None
    context_tokens: int | None = None
    draft: str | None = None
    draft_file: str | None = None
    draft_tokens: int = DEFAULT_DRAFT_TOKENS
    draft_threads: int | None = None
    draft_always: bool = False
    pooling: Pooling = Pooling.AUTO
    normalize: Normalize = Normalize.AUTO
    batch_tokens: int = DEFAULT_BATCH_TOKENS
    tensors: bool = False
    join_requests: bool = False

    @property
    def gpu(self) -> int | None:
        """Which of NVIDIA's GPUs computes, as CUDA counts them; None: none does."""
        first = self.providers[0]
        if first not in _ON_CUDA:
            return None
        return int(self.provider_options.get(first, {}).get(_DEVICE_ID, "0"))


def parse_options(deployment: Deployment) -> Options:
    """Return what the deployment asks for.

    Raises:
        ConfigError: the model is missing, an option is unknown (with the nearest
            name) or has a value that is not allowed.
    """
    if deployment.model is None:
        raise ConfigError(
            f"deployment {deployment.name!r}: ort needs a model: the path of a "
            "directory with an .onnx file, config.json and tokenizer.json, or "
            "hf:ORGANISATION/NAME"
        )
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
    taken["source"] = deployment.model
    for source, file in (("source", "file"), ("draft", "draft_file")):
        _split(deployment.name, taken, source, file)
    options = Options(**taken)
    _check_provider_options(deployment.name, options)
    _check_draft(deployment, options)
    return options


def _split(deployment: str, taken: dict[str, Any], source: str, file: str) -> None:
    """Have the file that a hub's name ends with be what the option ``file`` says."""
    if not str(taken.get(source, "")).startswith(PREFIX):
        return
    try:
        taken[source], named = model_and_export(taken[source])
    except ConfigError as error:
        raise ConfigError(f"deployment {deployment!r}: {error}") from error
    if named is not None and taken.setdefault(file, named) != named:
        raise ConfigError(
            f"deployment {deployment!r}: {file} is {taken[file]!r}, and the name ends "
            f"with {named!r}; leave one of them out"
        )


class _NotAllowedError(Exception):
    """A value is not allowed; the text says what is."""


def _unknown_option(deployment: str, name: str) -> str:
    near = difflib.get_close_matches(name, _PARSERS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(_PARSERS)}"
    return f"deployment {deployment!r}: ort has no option {name!r}; {hint}"


def _check_provider_options(deployment: str, options: Options) -> None:
    for name in options.provider_options:
        if name not in options.providers:
            raise ConfigError(
                f"deployment {deployment!r}: provider_options are given for {name!r}, "
                f"which is not in providers: {', '.join(options.providers)}"
            )
    for name in _ON_CUDA:
        number = options.provider_options.get(name, {}).get(_DEVICE_ID, "0")
        if not (number.isascii() and number.isdecimal()):
            raise ConfigError(
                f"deployment {deployment!r}: {_DEVICE_ID} of {name} in "
                f'provider_options is {number!r}; give a GPU\'s number, such as "1"'
            )


def _check_draft(deployment: Deployment, options: Options) -> None:
    if options.draft is not None:
        return
    for name in ("draft_file", "draft_tokens", "draft_threads", "draft_always"):
        if name in deployment.options:
            raise ConfigError(
                f"deployment {deployment.name!r}: {name} has no effect without draft"
            )


# --- values -------------------------------------------------------------------


def _file(value: OptionValue) -> str:
    if isinstance(value, str) and value.endswith(".onnx") and not value.startswith("/"):
        return value
    raise _NotAllowedError("give an .onnx file's path inside the model's directory")


def _folder(value: OptionValue) -> str:
    if isinstance(value, str) and value:
        if value.startswith(PREFIX):
            try:
                parse_hub_model(value)
            except ConfigError as error:
                raise _NotAllowedError(str(error)) from error
        return value
    raise _NotAllowedError("give the path of a model's directory")


def _whole(least: int, most: int) -> Callable[[OptionValue], int]:
    def parse(value: OptionValue) -> int:
        # A bool is an int to Python, and no number to a person.
        is_number = isinstance(value, int) and not isinstance(value, bool)
        if is_number and least <= value <= most:  # type: ignore[operator] # an int, as is_number says
            return value  # type: ignore[return-value] # as above
        raise _NotAllowedError(f"give a whole number from {least} to {most}")

    return parse


def _yes_or_no(value: OptionValue) -> bool:
    if isinstance(value, bool):
        return value
    raise _NotAllowedError("give true or false")


def _member(kind: type[Pooling | Normalize | Weights]) -> Callable[[OptionValue], Enum]:
    def parse(value: OptionValue) -> Enum:
        for member in kind:
            if value == member.value:
                return member
        allowed = ", ".join(repr(member.value) for member in kind)
        raise _NotAllowedError(f"give one of {allowed}")

    return parse


def _providers(value: OptionValue) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise _NotAllowedError('give an array of names, such as ["cuda", "cpu"]')
    for name in value:
        if name not in PROVIDERS:
            raise _NotAllowedError(_unknown_provider(str(name)))
    if len(set(map(str, value))) < len(value):
        raise _NotAllowedError("name each provider once")
    return tuple(map(str, value))


def _unknown_provider(name: str) -> str:
    low = name.lower()
    near = [_MEANT[low]] if low in _MEANT else []
    near += difflib.get_close_matches(low, PROVIDERS, n=1)
    known = f"known: {', '.join(PROVIDERS)}"
    hint = f"did you mean {near[0]!r}?" if near else known
    return f"there is no provider {name!r}; {hint}"


def _provider_options(value: OptionValue) -> dict[str, dict[str, str]]:
    if not isinstance(value, Mapping):
        raise _NotAllowedError("give a table with a table for each provider")
    tables: dict[str, dict[str, str]] = {}
    for name, table in value.items():
        if not isinstance(table, Mapping) or not all(
            isinstance(text, str) for text in table.values()
        ):
            raise _NotAllowedError(f"{name!r} must be a table of strings")
        tables[name] = {key: str(text) for key, text in table.items()}
    return tables


_PARSERS: Mapping[str, Callable[[OptionValue], object]] = {
    "file": _file,
    "weights": _member(Weights),
    "providers": _providers,
    "provider_options": _provider_options,
    "threads": _whole(1, 1024),
    "max_seqs": _whole(1, MAX_MAX_SEQS),
    "prefill_tokens": _whole(1, 1_000_000),
    "cache_tokens": _whole(1, 1_000_000_000),
    "context_tokens": _whole(1, 100_000_000),
    "draft": _folder,
    "draft_file": _file,
    "draft_tokens": _whole(1, 64),
    "draft_threads": _whole(1, 1024),
    "draft_always": _yes_or_no,
    "pooling": _member(Pooling),
    "normalize": _member(Normalize),
    "batch_tokens": _whole(1, 10_000_000),
    "tensors": _yes_or_no,
    "join_requests": _yes_or_no,
}
