"""What a deployment on TensorRT may say, parsed and checked.

Pure: whether a file is there is ``loading``'s question, and whether a profile fits the
model is the model's.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import attrs

from atomr_infer.errors import ConfigError
from atomr_infer.runtimes.hub.names import PREFIX, parse_hub_model
from atomr_infer_ort.options import Normalize, Pooling
from atomr_infer_ort.options import Options as TextOptions
from atomr_infer_tensorrt.recipe import Precision
from atomr_infer_tensorrt.shapes import Profile, Range

if TYPE_CHECKING:
    from atomr_infer.model.deployment import Deployment, OptionValue

PLANS = (".plan", ".engine", ".trt")
"""How the files of plans are called."""

DEFAULT_MAX_BATCH = 32
"""Rows of one run: a GPU's kernels gain much up to here."""

DEFAULT_CONTEXTS = 2
"""While one run computes, the next one's inputs are copied."""

DEFAULT_PLAN_CACHE_GIB = 20

DEFAULT_MAX_SEQS = 16
DEFAULT_PREFILL_TOKENS = 256


class Library(Enum):
    """Which of the two libraries is used."""

    AUTO = "auto"
    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt_rtx"


@attrs.frozen(kw_only=True)
class Options:
    """A deployment's model and options.

    Attributes:
        source: a plan (``.plan``, ``.engine``), an ``.onnx`` file, or a directory.
        file: the plan or ``.onnx`` file inside the directory; None: the usual names
            are tried, and else one alone is taken. Of a hub's model it chooses what
            is fetched.
        library: ``auto`` (``tensorrt``, else ``tensorrt_rtx``), ``tensorrt`` or
            ``tensorrt_rtx``.
        device: which GPU, from 0, of those that ``CUDA_VISIBLE_DEVICES`` leaves.
        precision: what matrix products are computed in: ``model`` (as the file says),
            ``fp16``, or ``int8`` and ``fp8``, which keep the weights in 8 bits and
            compute in fp16.
        profiles: the shapes that the plan takes: an array of tables, with a table of
            ``least``, ``usual`` and ``most`` for each input whose sizes vary; empty:
            made for the kind of model.
        tensors: whether the model takes tensors, though a tokenizer is beside it.
        max_batch: rows of one run.
        join_requests: whether tensors of several requests share a run, by their
            first dimension; only for a model whose rows are each for themselves.
            Texts always share runs.
        contexts: runs at once, each with memory of its own.
        workspace_mib: most that a layer may take while the plan runs; None: what the
            GPU has.
        optimization_level: how long the library looks for fast kernels, from 0 to 5;
            None: its own.
        plan_cache: the directory where plans are kept; None: in the user's cache.
        plan_cache_gib: what all plans in it may take; those that were not used for
            the longest go first.
        pooling: how a text's vector is made; ``auto``: as the model's files say.
        normalize: whether vectors are made as long as one; ``auto``: as the model's
            files say.
        batch_tokens: tokens of texts in one run, padding counted.
        context_tokens: bounds a text, or prompt and answer of a request; None: the
            model's own bound.
        max_seqs: sequences of a causal model that are decoded together in one step.
        prefill_tokens: tokens of a prompt that are read in one step.
        cache_tokens: tokens that the key-value caches of all sequences hold; None:
            what a quarter of the GPU's free memory holds.
    """

    source: str
    file: str | None = None
    library: Library = Library.AUTO
    device: int = 0
    precision: Precision = Precision.MODEL
    profiles: tuple[Profile, ...] = ()
    tensors: bool = False
    max_batch: int = DEFAULT_MAX_BATCH
    join_requests: bool = False
    contexts: int = DEFAULT_CONTEXTS
    workspace_mib: int | None = None
    optimization_level: int | None = None
    plan_cache: str | None = None
    plan_cache_gib: int = DEFAULT_PLAN_CACHE_GIB
    pooling: Pooling = Pooling.AUTO
    normalize: Normalize = Normalize.AUTO
    batch_tokens: int = 4096
    context_tokens: int | None = None
    max_seqs: int = DEFAULT_MAX_SEQS
    prefill_tokens: int = DEFAULT_PREFILL_TOKENS
    cache_tokens: int | None = None

    @property
    def for_texts(self) -> TextOptions:
        """What of it is about reading texts."""
        return TextOptions(
            source=self.source,
            pooling=self.pooling,
            normalize=self.normalize,
            batch_tokens=self.batch_tokens,
            context_tokens=self.context_tokens,
        )


def is_plan(path: str) -> bool:
    """Whether a file is called as plans are.

    >>> is_plan("/models/resnet.PLAN"), is_plan("/models/resnet.onnx")
    (True, False)
    """
    return PurePath(path).suffix.lower() in PLANS


def parse_options(deployment: Deployment) -> Options:
    """Return what the deployment asks for.

    Raises:
        ConfigError: the model is missing, an option is unknown (with the nearest
            name) or has a value that is not allowed, or two exclude each other.
    """
    source = _source(deployment)
    taken: dict[str, Any] = {}
    for name, value in deployment.options.items():
        if name not in _PARSERS:
            raise ConfigError(_unknown_option(deployment.name, name))
        try:
            taken[name] = _PARSERS[name](value)
        except _NotAllowedError as error:
            raise ConfigError(
                f"deployment {deployment.name!r}: {name} is {_short(value)}; {error}"
            ) from error
    options = Options(source=source, **taken)
    if is_plan(options.file or options.source):
        _check_plan(deployment.name, taken)
    return options


def _source(deployment: Deployment) -> str:
    model = deployment.model
    if model is None:
        raise ConfigError(
            f"deployment {deployment.name!r}: tensorrt needs a model: a .plan or .onnx "
            "file, a directory with one, or hf:ORGANISATION/NAME"
        )
    if model.startswith(PREFIX):
        try:
            parse_hub_model(model)
        except ConfigError as error:
            raise ConfigError(f"deployment {deployment.name!r}: {error}") from error
    return model


_OF_BUILDING = (
    "precision",
    "profiles",
    "workspace_mib",
    "optimization_level",
)


def _check_plan(deployment: str, taken: Mapping[str, Any]) -> None:
    """Refuse what would have no effect: a plan is built already."""
    for name in _OF_BUILDING:
        if name in taken:
            raise ConfigError(
                f"deployment {deployment!r}: {name} is about building a plan, and the "
                "model is a plan; leave it out, or give the .onnx file"
            )


class _NotAllowedError(Exception):
    """A value is not allowed; the text says what is."""


def _short(value: OptionValue) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _unknown_option(deployment: str, name: str) -> str:
    near = difflib.get_close_matches(name, _PARSERS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(_PARSERS)}"
    return f"deployment {deployment!r}: tensorrt has no option {name!r}; {hint}"


# --- values -------------------------------------------------------------------


def _file(value: OptionValue) -> str:
    is_inside = isinstance(value, str) and not value.startswith("/")
    if is_inside and str(value).lower().endswith((".onnx", *PLANS)):
        return str(value)
    kinds = ", ".join((".onnx", *PLANS))
    raise _NotAllowedError(f"give a file inside the model's directory: {kinds}")


def _whole(least: int, most: int) -> Callable[[OptionValue], int]:
    def parse(value: OptionValue) -> int:
        # A bool is an int to Python, and no number to a person.
        if type(value) is int and least <= value <= most:
            return value
        raise _NotAllowedError(f"give a whole number from {least} to {most}")

    return parse


def _member(kind: type[Enum]) -> Callable[[OptionValue], Enum]:
    def parse(value: OptionValue) -> Enum:
        for member in kind:
            if value == member.value:
                return member
        allowed = ", ".join(repr(member.value) for member in kind)
        raise _NotAllowedError(f"give one of {allowed}")

    return parse


def _yes_or_no(value: OptionValue) -> bool:
    if isinstance(value, bool):
        return value
    raise _NotAllowedError("give true or false")


def _folder(value: OptionValue) -> str:
    if isinstance(value, str) and value:
        return value
    raise _NotAllowedError("give the path of a directory")


def _profiles(value: OptionValue) -> tuple[Profile, ...]:
    if not isinstance(value, list) or not value:
        raise _NotAllowedError(
            "give an array of tables, such as "
            "[{ x = { least = [1, 3], usual = [8, 3], most = [32, 3] } }]"
        )
    profiles = []
    for table in value:
        if not isinstance(table, Mapping) or not table:
            raise _NotAllowedError("give a table for each profile, with its inputs")
        profiles.append({name: _range(name, one) for name, one in table.items()})
    return tuple(profiles)


def _range(name: str, value: OptionValue) -> Range:
    known = ("least", "usual", "most")
    if not isinstance(value, Mapping) or set(value) != set(known):
        raise _NotAllowedError(f"{name!r} needs least, usual and most, and no more")
    shapes = []
    for key in known:
        sizes = value[key]
        if not isinstance(sizes, list) or any(type(size) is not int for size in sizes):
            raise _NotAllowedError(f"{key} of {name!r} must be an array of numbers")
        shapes.append(tuple(int(str(size)) for size in sizes))
    try:
        return Range(*shapes)
    except ValueError as error:
        raise _NotAllowedError(f"{name!r}: {error}") from error


_PARSERS: Mapping[str, Callable[[OptionValue], object]] = {
    "file": _file,
    "library": _member(Library),
    "device": _whole(0, 1023),
    "precision": _member(Precision),
    "profiles": _profiles,
    "tensors": _yes_or_no,
    "max_batch": _whole(1, 65_536),
    "join_requests": _yes_or_no,
    "contexts": _whole(1, 64),
    "workspace_mib": _whole(1, 10_000_000),
    "optimization_level": _whole(0, 5),
    "plan_cache": _folder,
    "plan_cache_gib": _whole(1, 1_000_000),
    "pooling": _member(Pooling),
    "normalize": _member(Normalize),
    "batch_tokens": _whole(1, 10_000_000),
    "context_tokens": _whole(1, 100_000_000),
    "max_seqs": _whole(1, 1024),
    "prefill_tokens": _whole(16, 1_000_000),
    "cache_tokens": _whole(1, 1_000_000_000),
}
